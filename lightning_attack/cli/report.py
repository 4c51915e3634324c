"""The command `report`: finished runs side by side. It loads neither torch nor Lightning."""

from __future__ import annotations

from lightning_attack.cli.plain_parser import PlainParser, add_draws
from lightning_attack.cli.program import program
from lightning_attack.common.expanded import expanded
from lightning_attack.report.command import OUTPUT, report


def run(words: list[str]) -> int:
    """Run `report RUN...`, see `report.command.report`; returns the exit code."""
    report(**vars(_parser().parse_args(words[1:])))
    return 0


def _parser() -> PlainParser:
    parser = PlainParser(
        prog=f"{program()} report",
        description="Compare finished runs: print tables, and write report.{csv,md,tex,bib,html} and differences.csv.",
    )
    parser.add_argument("runs", nargs="+", type=expanded, help="folders of runs, or folders above them")
    parser.add_argument(
        "--output",
        type=expanded,
        metavar="DIR",
        default=OUTPUT,
        help="folder of the report; not inside a run (default: %(default)s)",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="attack, label or folder that the others are compared with (default: pgd, or the plainest there is)",
    )
    add_draws(parser)
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="NAME=TEXT",
        help="what attacks, networks and data sets are called in report.tex and the page's first tables: pgd=PGD",
    )
    flags = {
        "intervals": "give the figures in report.tex their 95 %% intervals",
        "common": "compare runs of different images on those that all have",
        "partial": "report runs that were stopped too",
        "mean": "make one row of runs that differ in nothing but their seed: mean and standard deviation",
    }
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser

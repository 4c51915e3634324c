"""The command `figure`: finished runs as a figure for a paper. It loads neither torch nor Lightning."""

from __future__ import annotations

from argparse import ArgumentParser

from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.mistake import known
from lightning_attack.cli.plain_parser import PlainParser, add_draws
from lightning_attack.cli.program import program
from lightning_attack.common.expanded import expanded

KINDS = {
    "strip": "pictures: clean, adversarial, difference, ground truth and predictions of chosen images",
    "steps": "curves: mIoU over the steps of the attack, of runs with --curve=steps",
    "eps": "curves: mIoU over the radius, through runs that differ in it",
    "passes": "curves: mIoU over the backward passes, through runs that differ in their steps",
    "strength": "curves: mIoU over a setting of a defence, such as the quality of JPEG",
    "matrix": "mIoU of each source (row) and target (column), a matrix for each attack",
}


def run(words: list[str]) -> int:
    """Run `figure KIND RUN... --output FILE...`, see `report.figures.command.figure`; returns the exit code."""
    parser = _parser()
    kind = words[1] if len(words) > 1 else ""
    if kind not in ("-h", "--help", *KINDS):
        what = f"there is no kind of figure '{kind}'" if kind else "which figure?"
        first = f"the kind comes first, such as `{program()} figure matrix {kind or 'results'} --output=matrix.pdf`"
        raise UsageError(f"{known(what, kind, KINDS)}\n{first}")
    arguments = vars(parser.parse_args(words[1:]))
    try:
        from lightning_attack.report.figures.command import figure
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise UsageError("matplotlib draws figures, and is not installed\npip install matplotlib") from error
    figure(**arguments)
    return 0


def _parser() -> PlainParser:
    parser = PlainParser(
        prog=f"{program()} figure",
        description="Draw finished runs for a paper, as PDF, SVG, PNG or JPEG.",
        epilog=f"`{program()} figure KIND --help` shows the options of each.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, text in KINDS.items():
        one = kinds.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            usage=f"{program()} figure {name} RUN ... --output FILE ... [OPTION ...]",
        )
        one.add_argument("runs", nargs="+", type=expanded, metavar="RUN", help="folders of runs, or folders above them")
        one.add_argument(
            "--output",
            nargs="+",
            type=expanded,
            required=True,
            metavar="FILE",
            help="one or more of *.pdf, *.svg, *.png, *.jpg",
        )
        one.add_argument(
            "--width", default="page", help="column (3.25 in), page (6.875 in) or inches (default: %(default)s)"
        )
        if name == "strip":
            _strip(one)
        else:
            _scores(one)
        _look(one)
    return parser


def _strip(parser: ArgumentParser) -> None:
    parser.add_argument("--images", nargs="+", metavar="NAME", help="names of the images (default: the first three)")
    parser.add_argument(
        "--panels",
        nargs="+",
        metavar="PANEL",
        help="which, in this order: clean, adversarial, difference, labels, and networks for their predictions "
        "(default: all)",
    )


def _scores(parser: ArgumentParser) -> None:
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="scored networks, in this order (default: all)")
    parser.add_argument("--mean", action="store_true", help="make one of runs that differ in nothing but their seed")
    parser.add_argument("--common", action="store_true", help="show runs of different images on those that all have")
    add_draws(parser)


def _look(parser: ArgumentParser) -> None:
    parser.add_argument("--columns", type=int, metavar="N", help="panels in a row (default: as many as fit)")
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="NAME=TEXT",
        help="what attacks, networks and classes are called, such as pgd=PGD",
    )
    parser.add_argument("--font", default="sans-serif", help="family, or name of a font (default: %(default)s)")
    parser.add_argument("--font_size", type=float, default=7, metavar="PT", help="in points (default: %(default)g)")
    parser.add_argument("--dpi", type=int, default=300, metavar="N", help="of PNG and JPEG (default: %(default)s)")
    parser.add_argument("--partial", action="store_true", help="draw runs that were stopped too")

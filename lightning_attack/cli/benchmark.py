"""The command `benchmark`: a fixed study, whose result is one file that can be compared with those of others."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from lightning_attack.cli import study
from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.launch import is_first
from lightning_attack.cli.parser import Parser, with_paths
from lightning_attack.cli.program import program
from lightning_attack.common.atomic import atomic_write, check_file
from lightning_attack.common.configs import find_config
from lightning_attack.common.expanded import expanded
from lightning_attack.report.leaderboard import leaderboard, leaderboard_page
from lightning_attack.report.submission import Benchmark, read_submissions, submission
from lightning_attack.study.plan import Study, StudyError, cells

_FREE = ("attacks", "images", "on_error", "strict", "trainer")
"""What may differ between results of a benchmark that compare: it changes no figure of an attack.

Of `trainer` the precision does, see `_precision`.
"""

_SHORT = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Short names of precisions that Lightning takes too."""

_DEFENDED = ("Defended", "Smoothed")
"""Ends of the class paths of networks behind defences."""


def run(words: list[str]) -> int:
    """Run `benchmark [--attack NAME ...]` or `benchmark --compare FILE ...`; returns the exit code, as `main` does."""
    study.refuse_second_file(words)
    given = _parser().parse_args(with_paths(words[1:]))
    output = None if given.output is None else Path(expanded(given.output))
    if given.compare:
        if output is not None:
            check_file(output)
        found = read_submissions([Path(file) for file in given.compare])
        _show(leaderboard(found))
        if output is not None:
            page = output.suffix.lower() in (".html", ".htm")
            _write(output, leaderboard_page(found) if page else leaderboard(found))
        return 0
    file = Path(find_config(given.file) or given.file)
    plan = study.read(file)
    if given.attack:
        plan.attacks = given.attack
    name = given.name or file.stem
    folder = Path(expanded(given.results)) / name
    output = output or folder / "benchmark.json"
    check_file(output)
    try:
        folders = [folder / cell.name for cell in cells(plan, file.parent)]
    except StudyError as error:
        raise UsageError(f"{file}: {error}") from error
    if output.exists() and not given.dry_run:
        _check_same(output, file.stem, folders)
    code = study.run_study(plan, file, folder, words, dry_run=given.dry_run)
    if code == 3 and is_first():
        print(f"'{output}' is not written: photos were left out, so it would not compare with others", file=sys.stderr)
    if code or given.dry_run or not is_first():
        return code
    found = submission(_benchmark(plan, file), folders)
    _write(output, json.dumps(found, indent=1))
    _show(leaderboard({output.stem: found}))
    Console().print(f"Result: {output}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog=f"{program()} benchmark",
        description="Run attacks on the networks, defences and photos of a benchmark, and write one file of figures.",
    )
    default = "configs/benchmarks/scenes-1.yaml"
    parser.add_argument("-c", "--config", dest="file", type=str, default=default, metavar="FILE", help="Its file.")
    parser.add_argument("--attack", nargs="+", help="Attacks in place of those of the file: names or files.")
    parser.add_argument("--results", type=str, default="results", help="Folder of all runs.")
    parser.add_argument("--name", type=str | None, default=None, help="Folder of the runs; default: the file's name.")
    parser.add_argument("--compare", nargs="+", metavar="JSON", help="Run nothing; one table of these results.")
    study.add_dry_run(parser)
    parser.add_argument(
        "--output", type=str | None, default=None, help="File of the result, or of the table (.md, .html)."
    )
    return parser


def _check_same(output: Path, benchmark: str, folders: Sequence[Path]) -> None:
    """Raise an error if a file is of another benchmark or of runs that the new one would not have, or no result."""
    (found,) = read_submissions([output]).values()
    if found["benchmark"] != benchmark:
        raise UsageError(
            f"'{output}' is the result of another benchmark ({found['benchmark']}, now {benchmark})\n"
            "give another file, --output=FILE, or delete it"
        )
    if {*found.get("runs", ())} - {folder.name for folder in folders}:
        attacks = ", ".join(attack["name"] for attack in found["attacks"])
        raise UsageError(
            f"'{output}' is the result of other attacks ({attacks})\ngive another file, --output=FILE, or delete it"
        )


def _benchmark(plan: Study, file: Path) -> Benchmark:
    # Without a key that is not used, benchmarks from before it was there keep their hash.
    unused = () if plan.defended else ("defended",)
    fixed = {key: value for key, value in asdict(plan).items() if key not in (*_FREE, *unused)}
    if (precision := _precision(plan)) != "32-true":  # likewise, those without another one keep it
        fixed["trainer"] = {"precision": precision}
    defended = {*plan.defended} | {
        name for name, part in plan.networks.items() if str(part["class_path"]).endswith(_DEFENDED)
    }
    return Benchmark(file.stem, fixed, frozenset(defended))


def _precision(plan: Study) -> str:
    """What the networks compute in, by the full name of the precision."""
    given = plan.trainer.get("precision")
    name = "32-true" if given is None else str(given)
    return _SHORT.get(name, name)


def _show(table: str) -> None:
    screen = Console()
    if screen.is_terminal:
        screen.print(Markdown(table))
    else:  # a log has no width, and Markdown is readable as it is
        print(table)


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as path:
        path.write_text(text, "utf-8")

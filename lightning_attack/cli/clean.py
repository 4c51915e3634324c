"""The command `clean`: drop what finished runs no longer need. It loads neither torch nor Lightning."""

from __future__ import annotations

import sys
from pathlib import Path

from lightning_attack.cli.plain_parser import PlainParser
from lightning_attack.cli.program import program
from lightning_attack.common.counted import counted
from lightning_attack.common.expanded import expanded
from lightning_attack.runs.cleaning import NotFinishedError, clean_run
from lightning_attack.runs.errors import RunError
from lightning_attack.runs.names import runs_below


def run(words: list[str]) -> int:
    """Run `clean RUN...`, see `runs.cleaning.clean_run`; returns the exit code.

    A run that cannot be cleaned does not keep it from the others. Those that are not finished are no error, unless
    there is no other.
    """
    given = _parser().parse_args(words[1:])
    would = "would drop" if given.dry_run else "dropped"
    # What links below a folder lead to may be nobody's to clean who named the folder.
    folders = [run for place in map(Path, given.runs) for run in [*runs_below(place, links=False)] or [place]]
    problems: list[RunError] = []
    for folder in folders:
        try:
            found = list(clean_run(folder, given.images, given.unfinished, given.dry_run))
        except RunError as error:
            problems.append(error)
            continue
        for one in found:
            size = f", {one.bytes / 1e6:.1f} MB" if one.bytes >= 1e5 else ""
            count = f"{counted(one.files, 'file')}{size}: " if one.files else ""
            print(f"{folder}: {would} {count}{one.what}")
        if not found:
            print(f"{folder}: nothing to drop")
    if len(folders) == len(problems) == 1:
        raise problems[0]
    for problem in problems:
        print(f"left as it is: {problem}", file=sys.stderr)
    harmless = len(problems) < len(folders) and all(isinstance(problem, NotFinishedError) for problem in problems)
    return 0 if harmless else 2


def _parser() -> PlainParser:
    parser = PlainParser(
        prog=f"{program()} clean",
        description="Drop what finished runs no longer need: their records become one file, shards of images another, "
        "and notes, locks and leftovers go. Tables and reports stay the same.",
    )
    parser.add_argument("runs", nargs="+", type=expanded, metavar="RUN", help="folders of runs, or folders above them")
    flags = {
        "images": "drop the adversarial images too",
        "unfinished": "clean runs that were stopped, too; they can go on all the same",
    }
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="only say what would be dropped")
    return parser

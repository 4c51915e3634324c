"""The command `clean`: drop what finished runs no longer need. It loads neither torch nor Lightning."""

from __future__ import annotations

from pathlib import Path

from lightning_attack.cli.plain_parser import PlainParser
from lightning_attack.cli.program import program
from lightning_attack.runs.cleaning import clean_run
from lightning_attack.runs.names import runs_below


def run(words: list[str]) -> int:
    """Run `clean RUN...`, see `runs.cleaning.clean_run`; returns the exit code."""
    given = _parser().parse_args(words[1:])
    would = "would drop" if given.dry_run else "dropped"
    for folder in (run for place in map(Path, given.runs) for run in [*runs_below(place)] or [place]):
        found = list(clean_run(folder, given.images, given.unfinished, given.dry_run))
        for one in found:
            size = f", {one.bytes / 1e6:.1f} MB" if one.bytes >= 1e5 else ""
            print(f"{folder}: {would} {one.files} {'file' if one.files == 1 else 'files'}{size}: {one.what}")
        if not found:
            print(f"{folder}: nothing to drop")
    return 0


def _parser() -> PlainParser:
    parser = PlainParser(
        prog=f"{program()} clean",
        description="Drop what finished runs no longer need: their records become one file, and notes, locks and "
        "leftovers go. Tables and reports stay the same.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or folders above them")
    flags = {
        "images": "drop the adversarial images too",
        "unfinished": "clean runs that were stopped, too; they can go on all the same",
    }
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="only say what would be dropped")
    return parser

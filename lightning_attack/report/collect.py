"""`collect`: read the runs in some folders, and name those that are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_attack.common.counted import counted
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run, read_run
from lightning_attack.runs.names import SUMMARY, runs_below, was_replaced
from lightning_attack.runs.order import in_order
from lightning_attack.runs.summary_files import missing_words

_NAMED = 5


def collect(paths: Sequence[str | Path], partial: bool = False) -> tuple[list[Run], list[str]]:
    """The runs in some folders, in the order of their study or by name, and notes on those that were left out.

    Args:
        paths: folders of runs, or folders above them, at any depth.
        partial: whether runs that were stopped count too.

    A folder above runs may hold some that `--fresh` replaced (`NAME.old_N`): these are left out. A folder that is named
    itself is always read.

    Raises:
        RunsError: no folder, no run in it, a run that was stopped and `partial` is false, or one that cannot be read.
    """
    folders: dict[Path, Path] = {}
    notes, unfinished = [], []
    for path in map(Path, paths):
        if not path.exists():
            raise RunsError(f"there is no folder '{path}'\ngive folders of runs, or a folder above them")
        start = path if path.is_dir() else path.parent
        found = list(runs_below(start))
        if not found:
            raise RunsError(f"'{path}' holds no run: there is no {SUMMARY} in it\ngive what --results named, or a run")
        for folder in found:
            if folder != start and was_replaced(folder):
                notes.append(f"'{folder}' was replaced by --fresh and is left out; name it to have it")
            elif (folder / SUMMARY).exists():
                folders.setdefault(folder.resolve(), folder)
            else:
                unfinished.append(folder)
    runs = [read_run(folder) for folder in in_order(folders.values())]
    stopped = [f"'{run.folder}' ({missing_words(run.summary)})" for run in runs if run.partial]
    stopped += [f"'{folder}' (no {SUMMARY})" for folder in unfinished]
    if stopped and not partial:
        raise RunsError(
            f"not finished: {_few(stopped)}\nthe command of a run goes on with it; --partial reports what is there"
        )
    notes += [f"'{folder}' has no {SUMMARY} and is left out" for folder in unfinished]
    for run in runs:
        if skipped := run.summary.get("skipped"):
            names = _few([one["name"] for one in skipped])
            said = f"'{run.folder}' left out {counted(len(skipped), 'image')} that could not be used: {names}"
            reason = " ".join(skipped[0]["error"].split())
            notes.append(said if run.records else f"{said}; it has no other ({reason}) and is not in the tables")
        elif not run.records:
            notes.append(f"'{run.folder}' has no image and is left out")
    runs = [run for run in runs if run.records]
    if not runs:
        raise RunsError(
            f"there is no run with images: {_few(stopped or notes)}\n"
            "the command of a run goes on with it, and tries again what was left out"
        )
    return runs, notes


def _few(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more

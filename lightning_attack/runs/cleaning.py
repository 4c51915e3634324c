"""Take away what a finished run leaves that only going on with it needs; its figures, and reports, stay the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightning_attack.common.shards import is_ended, join, members, mend
from lightning_attack.runs.dropped import note_dropped, read_dropped
from lightning_attack.runs.errors import RunError
from lightning_attack.runs.lock import lock_folder
from lightning_attack.runs.names import (
    SUMMARY,
    image_name,
    images_folder,
    is_run,
    locks_of_processes,
    next_part,
    record_files,
    segment_files,
    shard_files,
    shard_path,
    skipped_files,
    unfinished_files,
)
from lightning_attack.runs.segments import merge
from lightning_attack.runs.store import RecordStore


@dataclass(frozen=True)
class Cleaned:
    """What was taken away, or would be.

    Attributes:
        what: in words.
        files: how many fewer there are; 0 where one has become shorter.
        bytes: how much smaller they are.
    """

    what: str
    files: int
    bytes: int


class NotFinishedError(RunError):
    """A run that was stopped or is under way, and is left as it is."""


def clean_run(folder: Path, images: bool = False, unfinished: bool = False, dry_run: bool = False) -> Iterator[Cleaned]:
    """Merge a run's records into one file, and delete notes, locks and leftovers of processes that were killed.

    Shards of images become one, too. Of an image that was attacked again the earlier ones go, and so does one that was
    not written to its end.

    Args:
        folder: of the run.
        images: delete its adversarial images too; a note keeps a run that goes on from attacking these again.
        unfinished: do it to a run that was stopped, which can go on all the same.
        dry_run: only say what would be done.

    Raises:
        NotFinishedError: it is not finished; nothing was changed.
        RunError: it is no run, is under way, or has damaged records or shards; nothing was changed.
    """
    if not is_run(folder):
        raise RunError(f"'{folder}' is no run: there is no {SUMMARY} in it\ngive the folders of runs")
    if not unfinished and not _is_finished(folder):
        raise NotFinishedError(
            f"'{folder}' is not finished\nits own command goes on with it; --unfinished cleans it as it is"
        )
    lock = lock_folder(folder)
    try:
        yield from _cleaned(folder, images, dry_run)
    finally:
        lock.release()


def _is_finished(folder: Path) -> bool:
    try:
        return not json.loads((folder / SUMMARY).read_text()).get("partial")
    except (OSError, ValueError, AttributeError):
        return False


def _cleaned(folder: Path, images: bool, dry_run: bool) -> Iterator[Cleaned]:
    store = RecordStore(folder)
    shards = [] if images else _shards_to_join(folder)
    problem = next(iter(store.damaged), None) or next(_problems(folder, store, shards), None)
    if problem:
        raise RunError(f"{problem}\nthe run's own command repairs it; nothing was changed")
    old = [*record_files(folder), *segment_files(folder)]
    if len(old) > 1:
        before = _size(old)
        if dry_run:
            yield Cleaned(f"{len(old)} files of records become one", len(old) - 1, 0)
        else:
            path = merge(folder, store)
            for file in old:
                file.unlink()
            yield Cleaned(f"{len(old)} files of records became one", len(old) - 1, before - path.stat().st_size)
    if shards:
        yield _joined(folder, shards, dry_run)
    notes = skipped_files(folder)
    for what, files in (
        (f"notes on images that were left out ({SUMMARY} has them)", notes),
        ("locks of processes", [*locks_of_processes(folder)]),
        ("files that were not written to their end", unfinished_files(folder)),
    ):
        if files:
            yield Cleaned(what, len(files), _size(files))
            for file in () if dry_run else files:
                file.unlink(missing_ok=True)
    if notes and not dry_run:
        with suppress(OSError):
            notes[0].parent.rmdir()
    place = images_folder(folder)
    if images and place.is_dir():
        files = [path for path in place.rglob("*") if path.is_file()]
        yield Cleaned("adversarial images", len(files), _size(files))
        if not dry_run:
            note_dropped(folder, store.indices)
            shutil.rmtree(place)


def _shards_to_join(folder: Path) -> list[Path]:
    """All shards of a run's images; none if there is one and it is as it should be."""
    shards = shard_files(folder)
    return [] if len(shards) == 1 and is_ended(shards[0]) else shards


def _problems(folder: Path, store: RecordStore, shards: list[Path]) -> Iterator[str]:
    """What is wrong with records, and which images should be in shards and are not."""
    there, dropped = members(shards), read_dropped(folder)
    for index, facts in store.facts():
        if isinstance(facts, ValueError):
            yield str(facts)
        elif shards and index not in dropped and image_name(facts.name) not in there:
            yield f"'{image_name(facts.name)}' is in no shard of '{images_folder(folder)}': one is damaged or gone"


def _joined(folder: Path, shards: list[Path], dry_run: bool) -> Cleaned:
    """Put the images of several shards into one; of a single one, only its end in order."""
    what = f"{len(shards)} shards of images {'become' if dry_run else 'became'} one"
    if len(shards) == 1:
        what = "what a killed process was writing to a shard of images"
    if dry_run:
        return Cleaned(what, len(shards) - 1, 0)
    before = _size(shards)
    if len(shards) == 1:
        mend(shards[0])
    else:
        join(shards, shard_path(folder, next_part(folder), 0))
        for shard in shards:
            shard.unlink()
    left = shard_files(folder)
    return Cleaned(what, len(shards) - len(left), before - _size(left))


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)

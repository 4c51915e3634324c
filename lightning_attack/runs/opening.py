"""Make the folder of a run, or enter it again, as its first process does."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_attack.common.counted import counted
from lightning_attack.common.shards import mend
from lightning_attack.runs import names
from lightning_attack.runs.commands import note_command
from lightning_attack.runs.dropped import note_dropped, read_dropped
from lightning_attack.runs.errors import RunError
from lightning_attack.runs.images import KeptImages
from lightning_attack.runs.lock import FolderLock, lock_folder
from lightning_attack.runs.records import RecordError
from lightning_attack.runs.settings import Advice, Earlier, check_same, write_settings
from lightning_attack.runs.store import RecordStore, count_records

Digests = Callable[[Iterable[int]], Mapping[int, str | None]]
"""For places in the data set the digests of the photos as they are now; places that have none are not in it."""


@dataclass(frozen=True)
class Place:
    """Where a run shall have its folder.

    Attributes:
        results: folder of all runs.
        title: folder of the runs without a name, see `names.run_title`.
        run_name: a name of its own; without one, the run's folder is the first free `version_N`.
        fresh: rename a folder of that name to `<run_name>.old_N` and start over.
        advice: for the message, if the folder is of other settings.
    """

    results: Path
    title: str
    run_name: str | None = None
    fresh: bool = False
    advice: Advice = field(default_factory=Advice)


@dataclass(frozen=True)
class OpenRun:
    """The folder of a run that is under way; its lock is held.

    Attributes:
        folder: its folder.
        finished: places in the data set of the images that need not be attacked again.
    """

    folder: Path
    finished: frozenset[int]
    _lock: FolderLock
    _made: tuple[Path, ...] = ()  # what goes again with a failed run, the innermost first

    def close(self) -> None:
        """Give the folder back."""
        self._lock.release()

    def discard(self) -> None:
        """Give the folder back and, if this run has made it and nothing is finished, take it away again."""
        worthless = self._made and not count_records(self.folder) and not KeptImages(self.folder)
        if worthless:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()
        # On Windows the folder was not empty: a lock's file goes only now.
        for folder in self._made if worthless else ():
            with suppress(OSError):  # it is gone, or others have put something into it
                folder.rmdir()


def open_run(
    place: Place,
    settings: Mapping[str, Any],
    command: Sequence[str],
    digests: Digests | None,
    earlier: Earlier = tuple,
) -> OpenRun:
    """The folder of a run: a new one, or with a name that of an earlier part of the same run.

    Args:
        place: where it shall be.
        settings: what must be the same in all parts of a run.
        command: the words that started the run, for `command.txt`; none = no line there.
        digests: tells which photos have changed; None = the data cannot leave out finished images.
        earlier: gives the settings as earlier versions wrote them; a run that has these goes on, and gets the new ones.

    Raises:
        RunError: the folder is of other settings, is in use, or has finished images that cannot be left out.
    """
    folder = place.results / (place.run_name or "")
    if place.run_name and place.fresh and folder.exists():
        lock_folder(folder).release()
        folder.rename(names.free_replaced(folder))
    if place.run_name and folder.exists():
        check_same(folder, settings, earlier, place.advice)
        return _entered(folder, settings, command, digests)
    return _made(place, settings, command)


def _entered(folder: Path, settings: Mapping[str, Any], command: Sequence[str], digests: Digests | None) -> OpenRun:
    lock = lock_folder(folder)
    try:
        write_settings(folder, settings)  # which are the same, but may be in the form of an earlier version
        for path in names.unfinished_files(folder):
            path.unlink()
        for path in names.shard_files(folder):
            mend(path)
        if command:
            note_command(folder, command)
        finished, dropped = frozenset(_finished(folder, digests)), read_dropped(folder)
        if not dropped <= finished:
            note_dropped(folder, dropped & finished)  # the others are attacked again, and have images then
        return OpenRun(folder, finished, lock)
    except BaseException:
        lock.release()
        raise


def _made(place: Place, settings: Mapping[str, Any], command: Sequence[str]) -> OpenRun:
    parent = place.results if place.run_name else place.results / place.title
    # Those that are made here go again with a failed run; those that were there stay.
    above = [path for path in (parent, *parent.parents) if not path.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = parent / place.run_name if place.run_name else names.free_version(parent)
        try:
            folder.mkdir()
            break
        except FileExistsError:  # of two jobs that start together, one gets the number and the other the next
            if place.run_name:
                raise RunError(f"'{folder}' was made by another run just now; {place.advice.remedy}") from None
    run = OpenRun(folder, frozenset(), lock_folder(folder), (folder, *above))
    try:
        write_settings(folder, settings)
        if command:
            note_command(folder, command)
    except BaseException:
        run.discard()
        raise
    return run


def _finished(folder: Path, digests: Digests | None) -> Iterator[int]:
    """The images that have a whole record of the photo as it is now, and their PNG if the run writes them.

    Those that `clean` has deleted need no PNG. An image on which a target could not be scored is tried again: whatever
    made it fail may have been mended.
    """
    store = RecordStore(folder)
    if store.indices and digests is None:
        raise RunError(f"'{folder}' has finished images, and only a SegmentationDataModule can leave them out")
    now = digests(store.indices) if store.indices and digests else {}
    for damaged in store.damaged:
        _warn(f"{damaged}; its image is attacked again")
    images = KeptImages(folder) if names.images_folder(folder).is_dir() else None
    dropped = read_dropped(folder)
    others = failed = 0
    for index, facts in store.facts():
        if isinstance(facts, RecordError):
            _warn(f"{facts}; its image is attacked again")
            continue
        name, digest = facts.name, facts.digest
        if images is not None and index not in dropped and name not in images:
            _warn(f"'{names.image_path(folder, name)}' is gone; its image is attacked again")
            continue
        if digest and digest != now.get(index):
            if index in now:
                _warn(f"the photo or mask of '{name}' has changed since; it is attacked again")
            else:
                others += 1
            continue
        if facts.failed:
            failed += 1
            continue
        yield index
    if failed:
        _warn(
            f"'{folder}' has {counted(failed, 'image')} on which a target could not be scored; "
            f"{'it is' if failed == 1 else 'they are'} attacked again"
        )
    if others:
        _warn(
            f"{others} finished images of '{folder}' are not among the images of this run (other photos, or another "
            "limit or every?), so their records are deleted"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)

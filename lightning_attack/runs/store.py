"""`RecordStore`: all records of a run, read one at a time; segments and the files of older versions alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from lightning_attack.runs.names import record_files, segment_files
from lightning_attack.runs.old_records import read_old_record
from lightning_attack.runs.records import Facts, Record, RecordError, unpack, unpack_facts
from lightning_attack.runs.segments import Frame, Gap, frames, keep_in_segment, record_at

Content = TypeVar("Content")
_BUFFER = 2**16
_OPEN = 64
"""Segments that are open at a time: a run that was started a thousand times has as many."""


class _Place(NamedTuple):
    path: Path
    frame: Frame | None  # None in a file of its own


class RecordStore:
    """The records in the folder of a run, in the order of the data set. Only their places are kept in memory.

    Where two are of one image, the later one counts.

    Attributes:
        folder: of the run.
        damaged: sentences on pieces of segments that are no records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []
        places = {int(path.stem): _Place(path, None) for path in record_files(folder)}
        for path in segment_files(folder):
            for found in frames(path):
                if isinstance(found, Gap):
                    self.damaged.append(_damaged(path, found.start, found.end))
                else:
                    places[found.image] = _Place(path, found)
        self._places = dict(sorted(places.items()))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def indices(self) -> Collection[int]:
        """The places in the data set of all images that have a record."""
        return self._places.keys()

    def __iter__(self) -> Iterator[Record]:
        return self.read(self.indices)

    def read(self, indices: Iterable[int]) -> Iterator[Record]:
        """The records of some images, in their order.

        Raises:
            RecordError: one is damaged or of another version.
            OSError: one cannot be read.
        """
        for place, content in self._contents(indices):
            yield _record(place, content)

    def facts(self) -> Iterator[tuple[int, Facts | RecordError]]:
        """For each image its place in the data set and the facts of its record, or what is wrong with it.

        Raises:
            OSError: a file cannot be read.
        """
        for index, (place, content) in zip(self.indices, self._contents(self.indices), strict=True):
            try:
                yield (
                    index,
                    Facts.of(_record(place, content))
                    if place.frame is None
                    else _unpacked(place, content, unpack_facts),
                )
            except RecordError as error:
                yield index, error

    def packed(self, index: int) -> bytes:
        """The bytes of a record as they lie on the disk; another attack on its image would hardly give the same.

        Raises:
            RecordError: it is damaged.
            OSError: it cannot be read.
        """
        ((place, content),) = self._contents([index])
        return place.path.read_bytes() if place.frame is None else _whole(place, content)

    def _contents(self, indices: Iterable[int]) -> Iterator[tuple[_Place, bytes | None]]:
        """Places and packed records; None for one that is damaged, or lies in a file of its own."""
        with ExitStack() as stack:
            files: dict[Path, BinaryIO] = {}
            for place in map(self._places.__getitem__, indices):
                if place.frame is None:
                    yield place, None
                    continue
                if place.path not in files:
                    if len(files) == _OPEN:
                        stack.close()
                        files.clear()
                    files[place.path] = stack.enter_context(place.path.open("rb", _BUFFER))
                yield place, record_at(files[place.path], place.frame)


def count_records(folder: Path) -> int:
    """How many images of a run have a record."""
    return len(RecordStore(folder))


def keep_records(folder: Path, indices: Collection[int]) -> None:
    """Drop the records of other images, and what is damaged; no process may be writing."""
    for path in record_files(folder):
        if int(path.stem) not in indices:
            path.unlink()
    for path in segment_files(folder):
        keep_in_segment(path, indices)


def _record(place: _Place, content: bytes | None) -> Record:
    return read_old_record(place.path) if place.frame is None else _unpacked(place, content, unpack)


def _unpacked(place: _Place, content: bytes | None, unpack: Callable[[bytes], Content]) -> Content:
    """What a place of a segment holds, by the function that reads it."""
    whole = _whole(place, content)
    try:
        return unpack(whole)
    except RecordError as error:
        raise RecordError(f"'{place.path}' holds {error}") from error


def _whole(place: _Place, content: bytes | None) -> bytes:
    if content is None:
        assert place.frame is not None
        raise RecordError(_damaged(place.path, place.frame.start, place.frame.start + place.frame.length))
    return content


def _damaged(path: Path, start: int, end: int) -> str:
    return f"'{path}' (bytes {start} to {end}) is damaged or was not written to its end"

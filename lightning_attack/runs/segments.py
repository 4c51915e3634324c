r"""Segments: files to which a process appends the records of its images, one after the other.

    segment = frame, frame, ...
    frame   = b"\x93rec" | index, uint32 | length, uint32 | BLAKE2b-128 of index, length and record | record

All numbers are little-endian. A process that is killed leaves a frame that is not whole at the end, if any; what is
damaged elsewhere takes no other frame with it, for the next one is looked for by its first bytes and its hash.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.names import segment_path
from lightning_attack.runs.records import Record, pack

_MAGIC = b"\x93rec"
_HEAD = struct.Struct("<4sII16s")
_CHUNK = 2**20


class Frame(NamedTuple):
    """Where a record lies in a segment: the image that it is of, and the first byte and length of the record."""

    image: int
    start: int
    length: int


class Gap(NamedTuple):
    """Bytes of a segment that are no frame: `start` up to but without `end`."""

    start: int
    end: int


class SegmentWriter:
    """Appends records to a segment that no other process has; the file is made with the first of them.

    Args:
        folder: of the run.
        process: number of this process in the run.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from lightning_attack.runs.records import Sparse
        >>> ones = np.ones((1, 1), int)
        >>> with TemporaryDirectory() as folder:
        ...     writer = SegmentWriter(Path(folder), process=0)
        ...     for index in (3, 4):
        ...         writer.append(Record(index, "a", ones, Sparse.of(ones), {}, {}, 0.1))
        ...     writer.close()
        ...     [frame.image for frame in frames(segment_path(Path(folder), 0, 0))]
        [3, 4]
    """

    def __init__(self, folder: Path, process: int) -> None:
        self._folder, self._process = folder, process
        self._file: io.FileIO | None = None
        self._end = 0

    def append(self, record: Record) -> None:
        """Write a record to the end; after this call it survives the death of the process.

        Raises:
            OSError: it cannot be written; nothing of it stays, as far as the system lets.
        """
        if self._file is None:
            self._file = self._made()
        frame = _frame(record.index, pack(record))
        try:
            rest = memoryview(frame)
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            with suppress(OSError):
                self._file.truncate(self._end)
                self._file.seek(self._end)
            raise
        self._end += len(frame)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _made(self) -> io.FileIO:
        start = 0
        while True:
            path = segment_path(self._folder, self._process, start)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return io.FileIO(path, "xb")
            except FileExistsError:  # of an earlier part of the run
                start += 1


def frames(path: Path) -> Iterator[Frame | Gap]:
    """What a segment holds, by the heads of its frames: whether a record is whole, only `record_at` tells."""
    with path.open("rb", buffering=0) as file:
        place, size = 0, file.seek(0, io.SEEK_END)
        while place < size:
            found = _frame_at(file, place, size)
            if found is None or not _leads_on(file, found, size):
                after = _next_frame(file, place + 1, size)
                yield Gap(place, after)
                place = after
            else:
                yield found
                place = found.start + found.length


def record_at(file: BinaryIO | io.FileIO, frame: Frame) -> bytes | None:
    """The packed record of a frame; None if it is damaged."""
    file.seek(frame.start - _HEAD.size)
    content = file.read(_HEAD.size + frame.length) or b""
    record = content[_HEAD.size :]
    return record if content == _frame(frame.image, record) and len(record) == frame.length else None


def keep_in_segment(path: Path, indices: Collection[int]) -> None:
    """Drop the records of other images, and what is no record. A segment that loses nothing is not touched."""
    found = list(frames(path))
    kept = [one for one in found if isinstance(one, Frame) and one.image in indices]
    if kept == found and kept:
        return
    if not kept:
        path.unlink()
        return
    with path.open("rb") as file, atomic_write(path) as unfinished, unfinished.open("wb") as new:
        for frame in kept:
            if (record := record_at(file, frame)) is not None:
                new.write(_frame(frame.image, record))


def merge(folder: Path, records: Iterable[Record]) -> Path:
    """Write records into a segment of their own, which is whole when it appears; its path."""
    start = 0
    while (path := segment_path(folder, 0, start)).exists():
        start += 1
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        for record in records:
            file.write(_frame(record.index, pack(record)))
    return path


def _frame(index: int, record: bytes) -> bytes:
    numbers = struct.pack("<II", index, len(record))
    return _MAGIC + numbers + hashlib.blake2b(numbers + record, digest_size=16).digest() + record


def _frame_at(file: io.FileIO, place: int, size: int) -> Frame | None:
    file.seek(place)
    head = file.read(_HEAD.size)
    if head is None or len(head) < _HEAD.size:
        return None
    magic, index, length, _ = _HEAD.unpack(head)
    start = place + _HEAD.size
    return Frame(index, start, length) if magic == _MAGIC and start + length <= size else None


def _leads_on(file: io.FileIO, frame: Frame, size: int) -> bool:
    """Whether another frame or the end of the file follows; if not, whether the length is right all the same."""
    end = frame.start + frame.length
    file.seek(end)
    return end == size or file.read(len(_MAGIC)) == _MAGIC or record_at(file, frame) is not None


def _next_frame(file: io.FileIO, place: int, size: int) -> int:
    """Where the next whole frame begins; the end of the file if there is none."""
    while place < size:
        file.seek(place)
        chunk = file.read(_CHUNK) or b""
        at = chunk.find(_MAGIC)
        if at < 0:
            place += max(len(chunk) - len(_MAGIC) + 1, 1)  # the first bytes of one may stand at the end
            continue
        frame = _frame_at(file, place + at, size)
        if frame and record_at(file, frame) is not None:
            return place + at
        place += at + 1
    return size

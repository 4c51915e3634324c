"""Shards: tar files to which a process appends images, one after the other, in place of a file for each.

Each is a tar file of the usual kind (POSIX), as `tar` and WebDataset read it. A process that is killed leaves a member
that is not whole at the end, if any, and no end mark; `mend` cuts off the one and writes the other, `join` makes one
shard of several.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightning_attack.common.atomic import atomic_write

_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Member:
    """Where a file lies in a shard: its first byte and its length."""

    shard: Path
    start: int
    length: int

    def read(self) -> bytes:
        """Its content."""
        with self.shard.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)


class ShardWriter:
    """Appends files to a shard that no other process has; the shard is made with the first of them.

    Args:
        path: of the shard, which does not exist.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     writer = ShardWriter(Path(folder) / "0000_0000.tar")
        ...     writer.append("a/b.png", b"one"); writer.append("c.png", b"two")
        ...     writer.close()
        ...     found = members([Path(folder) / "0000_0000.tar"])
        ...     {name: member.read() for name, member in found.items()}
        {'a/b.png': b'one', 'c.png': b'two'}
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._end = 0

    def append(self, name: str, content: bytes) -> None:
        """Write a file to the end; after this call it survives the death of the process.

        Raises:
            OSError: it cannot be written; nothing of it stays, as far as the system lets. Or its name would lead out
                of the folder into which the shard is unpacked.
        """
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise OSError(f"'{name}' lies outside of the run's folder")
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(self._path, "xb")
        head = tarfile.TarInfo(name)
        head.size, head.mtime = len(content), int(time.time())
        whole = head.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
        try:
            _write(self._file, whole)
        except BaseException:
            with suppress(OSError):
                self._file.truncate(self._end)
                self._file.seek(self._end)
            raise
        self._end += len(whole)

    def close(self) -> None:
        """Write the end mark and close the shard, if there is one."""
        if self._file is not None:
            with suppress(OSError):  # the disk is full: what was appended is whole all the same
                _write(self._file, _END)
            self._file.close()
            self._file = None


def _write(file: io.FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def members(shards: Iterable[Path]) -> dict[str, Member]:
    """The files in shards by their names; of two of one name, the later one in the later shard."""
    return {name: member for shard in shards for name, member in _members(shard)}


def mend(shard: Path) -> None:
    """Cut off what was not written to its end, and write the end mark that a killed process has not written.

    A shard in which nothing is whole goes.
    """
    end = _end(shard)
    if not end:
        shard.unlink()
        return
    with shard.open("r+b") as file:
        file.seek(end)
        if file.read() != _END:
            file.truncate(end)  # it is lengthened where the last bytes of the last block are missing
            file.seek(end)
            file.write(_END)


def is_ended(shard: Path) -> bool:
    """Whether a shard needs no mending: its last file is whole, and the end mark follows it."""
    end = _end(shard)
    with shard.open("rb") as file:
        file.seek(end)
        return bool(end) and file.read() == _END


def join(shards: Iterable[Path], path: Path) -> None:
    """Make one shard of several, which is whole when it appears; these stay. Of two files of one name, see `members`.

    Raises:
        OSError: it cannot be written, and is not there.
    """
    with atomic_write(path) as unfinished:
        writer = ShardWriter(unfinished)
        for name, member in members(shards).items():
            writer.append(name, member.read())
        writer.close()


def _end(shard: Path) -> int:
    """Where the end mark belongs, after the last whole file; 0 if there is none."""
    end = 0
    for _, member in _members(shard):
        end = member.start + member.length + -member.length % tarfile.BLOCKSIZE
    return end


def _members(shard: Path) -> Iterator[tuple[str, Member]]:
    """The whole files in a shard in their order; damaged ones are passed over."""
    with shard.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        with suppress(tarfile.ReadError):  # the end is missing, or there is nothing
            # Blocks that are no heads are passed over one by one.
            for info in tarfile.TarFile(fileobj=file, ignore_zeros=True, encoding="utf-8"):
                if info.isfile() and info.offset_data + info.size <= size:
                    yield info.name, Member(shard, info.offset_data, info.size)

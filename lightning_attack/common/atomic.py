"""Write files atomically: a file appears under its name when it is complete, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to: it becomes `path` when the block ends, and is removed if the block fails.

    Missing folders are created.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a" / "numbers.txt"
        ...     with atomic_write(path) as unfinished:
        ...         _ = unfinished.write_text("1 2 3")
        ...         before = path.exists()
        ...     before, path.read_text(), len(list(path.parent.iterdir()))
        (False, '1 2 3', 1)
    """
    if not path.parent.is_dir():  # one look, where making it that is there takes two
        path.parent.mkdir(parents=True, exist_ok=True)
    # With the suffix at its end, by which some writers choose the format.
    unfinished = path.with_name(f".{os.getpid()}.unfinished.{_short(path)}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(unfinished):
            error.filename = str(path)  # the name that the user knows
            del error.filename2
        raise


def _short(path: Path, limit: int = 200) -> str:
    """The file's name; a hash of it where the longer name of the unfinished file could be too long for file systems."""
    if len(os.fsencode(path.name)) <= limit:
        return path.name
    return hashlib.blake2b(os.fsencode(path.name), digest_size=16).hexdigest() + path.suffix[-20:]


def check_file(file: Path) -> None:
    """Raise `OSError` if a file cannot be written, as far as one can tell: it is a folder, or see `check_folder`.

    Example:
        >>> check_file(Path("/dev"))
        Traceback (most recent call last):
            ...
        IsADirectoryError: [Errno 21] Is a directory: '/dev'
    """
    if file.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    check_folder(file.parent)


def check_folder(folder: Path) -> None:
    """Raise `OSError` if a folder does not exist and cannot be made, or cannot be written to, as far as one can tell.

    Nothing is made: this is for a look before work that takes long.

    Example:
        >>> check_folder(Path("/dev/null/results"))
        Traceback (most recent call last):
            ...
        NotADirectoryError: [Errno 20] Not a directory: '/dev/null/results'
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

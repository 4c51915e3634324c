"""Write files that are complete when they appear."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; the file takes its real name when the block ends, and is gone if it fails.

    Folders are made as needed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a" / "numbers.txt"
        ...     with complete(path) as unfinished:
        ...         _ = unfinished.write_text("1 2 3")
        ...         before = path.exists()
        ...     before, path.read_text(), len(list(path.parent.iterdir()))
        (False, '1 2 3', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the suffix at its end, by which some writers choose the format.
    unfinished = path.with_name(f".{os.getpid()}.unfinished.{_short(path)}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _short(path: Path, limit: int = 200) -> str:
    """The file's name; a hash of it where the longer name of the unfinished file could be too long for file systems."""
    if len(os.fsencode(path.name)) <= limit:
        return path.name
    return hashlib.blake2b(os.fsencode(path.name), digest_size=16).hexdigest() + path.suffix[-20:]

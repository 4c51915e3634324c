"""Write files that are complete when they appear."""

from __future__ import annotations

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
    unfinished = path.with_name(f".{os.getpid()}.unfinished.{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)

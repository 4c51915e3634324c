"""Images that a run left out because they could not be used (`--on_error=skip`): a note for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.names import skipped_files, skipped_path


def write_skipped(folder: Path, index: int, name: str, error: str) -> None:
    """Note that an image was left out, and why.

    Args:
        folder: of the run.
        index: place of the image in the data set.
        name: of the image.
        error: what was wrong with it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_skipped(Path(folder), 7, "a", "torn")
        ...     read_skipped(Path(folder))
        [{'index': 7, 'name': 'a', 'error': 'torn'}]
    """
    with atomic_write(skipped_path(folder, index)) as path:
        path.write_text(json.dumps({"index": index, "name": name, "error": error}))


def read_skipped(folder: Path) -> list[dict[str, Any]]:
    """`index`, `name` and `error` of all images that were left out, in the order of the data set."""
    return [json.loads(path.read_text()) for path in skipped_files(folder)]

"""Images that `clean --images` has deleted: the run does not ask for them when it goes on."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.names import DROPPED


def note_dropped(folder: Path, indices: Collection[int]) -> None:
    """Note which images of a run are gone on purpose, in place of an earlier note; of none there is no note.

    Args:
        folder: of the run.
        indices: their places in the data set.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     before = read_dropped(Path(folder))
        ...     note_dropped(Path(folder), {2, 0})
        ...     noted = read_dropped(Path(folder))
        ...     note_dropped(Path(folder), ())
        ...     before, noted, len(list(Path(folder).iterdir()))
        (frozenset(), frozenset({0, 2}), 0)
    """
    if not indices:
        (folder / DROPPED).unlink(missing_ok=True)
        return
    with atomic_write(folder / DROPPED) as path:
        path.write_text(json.dumps({"indices": sorted(indices)}))


def read_dropped(folder: Path) -> frozenset[int]:
    """The places in the data set of the images that are gone on purpose; none where the note is damaged."""
    try:
        return frozenset(map(int, json.loads((folder / DROPPED).read_text())["indices"]))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()

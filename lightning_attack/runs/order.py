"""The order of runs in tables: that of their study, else that of their folders' names, where 4 is before 16."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.names import STUDY

_LAST = sys.maxsize


def write_order(folder: Path, cells: Sequence[str]) -> None:
    """Write the names of all runs of a study, in its order, into its folder."""
    with atomic_write(folder / STUDY) as path:
        path.write_text(json.dumps({"runs": list(cells)}, indent=2))


def in_order(folders: Iterable[Path]) -> list[Path]:
    """Folders of runs in the order of their studies; others follow, sorted by name, with numbers as such.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as place:
        ...     write_order(Path(place), ["pgd_b", "pgd_a"])
        ...     [folder.name for folder in in_order(Path(place) / name for name in ("a16", "a4", "pgd_a", "pgd_b"))]
        ['pgd_b', 'pgd_a', 'a4', 'a16']
    """
    order_of = cache(_read_order)

    def key(folder: Path) -> list[tuple[int, list[tuple[str, int]]]]:
        above = [(_LAST, _natural(part)) for part in folder.parent.parts]
        return [*above, (order_of(folder.parent).get(folder.name, _LAST), _natural(folder.name))]

    return sorted(folders, key=key)


def _natural(name: str) -> list[tuple[str, int]]:
    """A name as its words, each with the number that follows it."""
    return [(word, int(number or -1)) for word, number in re.findall(r"(\D*)(\d*)", name)]


def _read_order(folder: Path) -> dict[str, int]:
    """The place of each run of a study by its name; none where no study has left its order, or a damaged one."""
    try:
        names = json.loads((folder / STUDY).read_text())["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): place for place, name in enumerate(names)} if isinstance(names, list) else {}

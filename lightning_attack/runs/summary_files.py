"""`transfer.json` and `transfer.csv`: the summary of a run on disk."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_attack.common.atomic import atomic_write
from lightning_attack.common.counted import counted
from lightning_attack.runs.names import SUMMARY, TABLE


def write_summary(folder: Path, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Write the rows of the table as CSV and the whole summary as JSON; each file is complete when it appears.

    Args:
        folder: where they go.
        rows: one for each network, all with the same columns; see `summary.COLUMNS`.
        summary: see `summary.summarize`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, content in ((TABLE, text.getvalue()), (SUMMARY, json.dumps(summary, indent=2))):
        with atomic_write(folder / name) as path:
            path.write_text(content)


def summary_before(folder: Path) -> dict[str, Any]:
    """The summary that earlier parts of a run wrote; empty if there is none, as when they were killed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     before = summary_before(Path(folder))
        ...     write_summary(Path(folder), [{"target": "net"}], {"seconds": {"run": 1.5}})
        ...     before, summary_before(Path(folder))
        ({}, {'seconds': {'run': 1.5}})
    """
    try:
        found = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def mark_partial(folder: Path, before: Mapping[str, Any]) -> None:
    """Say in a summary that images are missing, because the records that it is about are going to change.

    Args:
        folder: where it lies.
        before: what it says, see `summary_before`; nothing is written where that is nothing.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     mark_partial(Path(folder), {})
        ...     before = summary_before(Path(folder))
        ...     mark_partial(Path(folder), {"images": 3})
        ...     before, summary_before(Path(folder))
        ({}, {'images': 3, 'partial': True})
    """
    if before and not before.get("partial"):
        with atomic_write(folder / SUMMARY) as path:
            path.write_text(json.dumps({**before, "partial": True}, indent=2))


def seconds_of(summary: Mapping[str, Any]) -> float:
    """The seconds that a run took, as its summary says; 0 if it does not.

    Example:
        >>> seconds_of({"seconds": {"run": 1.5}}), seconds_of({})
        (1.5, 0.0)
    """
    try:
        return float(summary["seconds"]["run"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def missing_words(summary: Mapping[str, Any]) -> str:
    """How many images the summary of a run lacks that was stopped; photos of one's own `DataLoader` are not counted.

    Example:
        >>> missing_words({"partial": True, "missing": 1}), missing_words({"partial": True})
        ('1 image is missing', 'some images are missing')
    """
    count = summary.get("missing")
    return f"{counted(count, 'image')} {'is' if count == 1 else 'are'} missing" if count else "some images are missing"

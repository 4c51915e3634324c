"""The table of the page: a row for each run and target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_attack.report.facts import backward_passes, radius, radius_text, steps
from lightning_attack.report.intervals import miou_interval
from lightning_attack.runs.folder import Run, common_images

MISSING = "–"


@dataclass(frozen=True)
class TableCell:
    """A cell: what it shows, and the number that it is sorted by; texts are sorted as such."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class TableRow:
    """A row: a network under the attack of a run."""

    cells: tuple[TableCell, ...]
    white_box: bool


NUMBERS = (
    "eps", "clean mIoU", "adversarial mIoU", "95 % interval", "drop", "clean accuracy", "adversarial accuracy", "steps",
    "backward passes", "images",
)  # fmt: skip
HEADINGS = ("attack", "source", "target", "white box", "eps", "run", *NUMBERS[1:])
"""What tells rows apart stands before the figures, so that it is in view."""
FILTERS = ("attack", "source", "target")


def choices(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What can be chosen in each of the columns `FILTERS`."""
    known = {
        "attack": {run.attack for run in runs},
        "source": {run.source for run in runs},
        "target": {target for run in runs for target in run.targets},
    }
    return {name: sorted(known[name]) for name in FILTERS}


def table_rows(runs: Sequence[Run], folders: Sequence[str], draws: int) -> list[TableRow]:
    """The rows, in the order of the runs and of their targets.

    Args:
        runs: one or more.
        folders: what the column `run` calls each.
        draws: of the bootstrap.
    """
    return [
        TableRow(tuple(_cells(run, row, folder, draws)), row["white_box"])
        for run, folder in zip(runs, folders, strict=True)
        for row in run.summary["targets"]
    ]


def _cells(run: Run, row: dict[str, Any], folder: str, draws: int) -> list[TableCell]:
    shares = ("clean_miou", "adversarial_miou", "drop", "clean_accuracy", "adversarial_accuracy")
    scores = [TableCell(MISSING if row[key] is None else f"{100 * row[key]:.2f}", row[key]) for key in shares]
    length = radius(run)
    passes, count = backward_passes(run), row["images"]
    missing = run.summary.get("missing")
    return [
        TableCell(row["attack"]),
        TableCell(row["source"]),
        TableCell(row["target"]),
        TableCell("yes" if row["white_box"] else "no"),
        TableCell(radius_text(run) or MISSING, length and length[1]),
        TableCell(folder),
        *scores[:2],
        _interval(run, row["target"], draws),
        *scores[2:],
        TableCell(str(steps(run) or MISSING), steps(run)),
        TableCell(MISSING if passes is None else f"{passes:.5g}", passes),
        TableCell(f"{count} ({missing} missing)" if missing else str(count), count),
    ]


def _interval(run: Run, target: str, draws: int) -> TableCell:
    """Of the adversarial mIoU over the images on which the target was scored, sorted by its width."""
    images = common_images([run], run.scored(target))
    if not images:
        return TableCell(MISSING)
    found = miou_interval(run.counts(target, images)[:, 1], draws)
    if math.isnan(found.high - found.low):
        return TableCell(MISSING)
    return TableCell(f"{100 * found.low:.1f}..{100 * found.high:.1f}", found.high - found.low)

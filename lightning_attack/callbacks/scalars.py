"""The scalars of a run for loggers: mIoU of each network, curves over the attack's steps and over the images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_attack.metrics.iou import class_counts, miou
from lightning_attack.runs.records import Record

POINTS = 64
"""Largest number of points of a curve over the images."""
_TAGS = {
    "clean/miou": "clean_miou", "adversarial/miou": "adversarial_miou", "drop/miou": "drop",
    "adversarial/success": "success",
}  # fmt: skip


def scalars(summary: Mapping[str, Any], records: Sequence[Record]) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every scalar that is logged; shares are in [0, 1].

    `adversarial/miou/<target>`, `clean/...` and `drop/...` have one step. `steps/<figure>` are the summary's curves
    over the attack's steps, from which follow

        steps/fooled          = 1 - p_t
        steps/stage_two_share = images in stage two / images

    and with a curve of the run (`step_curve`) `curve/miou/<target>` over the number of steps.
    `over_images/white_box/<target>`, `over_images/transfer/<target>` (adversarial images) and
    `over_images/clean/<target>` are the mIoU over the first images; the step is their number in percent of all, so that
    runs of few and of many images share a chart. Where such a curve ends flat, more images would change the result
    little.

    Args:
        summary: the content of `transfer.json`.
        records: the records that it sums up.
    """
    for row in summary["targets"]:
        for tag, column in _TAGS.items():
            if row.get(column) is not None:
                yield f"{tag}/{row['target']}", row[column], 0
    for name, curve in summary["curves"].items():
        for step, value in enumerate(curve):
            if value is None:
                continue
            yield f"steps/{name}", value, step
            if name == "p_t":
                yield "steps/fooled", 1 - value, step
            elif name == "stage_two":
                yield "steps/stage_two_share", value / summary["images"], step
    curve = summary.get("step_curve", {"steps": [], "targets": {}})
    for target, points in curve["targets"].items():
        for step, value in zip(curve["steps"], points, strict=True):
            if value is not None:
                yield f"curve/miou/{target}", value, step
    for number, row in enumerate(summary["targets"]):
        names = f"clean/{row['target']}", f"{'white_box' if row['white_box'] else 'transfer'}/{row['target']}"
        for name, value, count in _over_images(records, number, names):
            yield f"over_images/{name}", value, count


def _over_images(records: Sequence[Record], number: int, names: tuple[str, str]) -> Iterator[tuple[str, float, int]]:
    """MIoU of a network over the first images, clean and adversarial, and how many percent of all these are."""
    ends = {-(-len(records) * point // POINTS) for point in range(1, POINTS + 1)}
    total = np.zeros(1, np.int64)
    for count, record in enumerate(records, 1):
        total = total + record.confusion[number, 0]
        for name, counts in zip(names, total, strict=True) if count in ends else ():
            value = float(miou(class_counts(counts)))
            if math.isfinite(value):  # without a label there is none
                yield name, value, round(100 * count / len(records))

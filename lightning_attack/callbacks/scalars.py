"""The scalars of a run for loggers: mIoU of each network, curves over the attack's steps and over the images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lightning_attack.metrics.iou import miou
from lightning_attack.runs.records import Record

POINTS = 64
"""Largest number of points of a curve over the images."""
_TAGS = {
    "clean/miou": "clean_miou", "adversarial/miou": "adversarial_miou", "drop/miou": "drop",
    "adversarial/success": "success",
}  # fmt: skip


def scalars(summary: Mapping[str, Any], over_images: OverImages) -> Iterator[tuple[str, float, int]]:
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
        over_images: the mIoU over the first images.
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
        for percent, values in over_images.points:
            for name, value in zip(names, values[number].tolist(), strict=True):
                if math.isfinite(value):  # without a label there is none
                    yield f"over_images/{name}", value, percent


class OverImages:
    """The mIoU of each network over the first images, clean and adversarial, while records are added one by one.

    Args:
        images: how many there will be.

    Attributes:
        points: how many percent of the images, and the mIoU over them, (networks, 2).
    """

    def __init__(self, images: int) -> None:
        self.points: list[tuple[int, np.ndarray]] = []
        self._images, self._count = images, 0
        self._ends = {-(-images * point // POINTS) for point in range(1, POINTS + 1)}
        self._total = np.zeros(1, np.int64)

    def add(self, record: Record) -> None:
        """Add the record of the next image."""
        self._total = self._total + record.counts[:, 0]
        self._count += 1
        if self._count in self._ends:
            self.points.append((round(100 * self._count / self._images), miou(self._total.astype(np.float64))))

"""From the records of single images to the summary of a run.

All sums are exact, so that the figures depend neither on the order of the images nor on batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from lightning_attack.metrics.flips import BINS, STATES
from lightning_attack.metrics.iou import accuracy, class_counts, iou, miou, miou_union
from lightning_attack.runs.records import Record

COLUMNS = (
    "attack", "source", "target", "white_box", "images", "clean_miou", "adversarial_miou", "drop",
    "clean_accuracy", "adversarial_accuracy",
)  # fmt: skip
CONDITIONS = ("clean", "adversarial")
MASKS, PREDICTED = "masks", "clean prediction of the source"
"""Where labels come from, in `transfer.json`."""
SUCCESS_COLUMNS = ("clean_success", "success")
REGION_COLUMNS = tuple(f"{part}_{condition}_miou" for part in ("inside", "outside") for condition in CONDITIONS)


@dataclass(frozen=True)
class Scored:
    """What the confusion matrices of a run's records are about.

    Attributes:
        attack: name of the attack.
        source: name of the source.
        white_box: for each scored network, by name, whether it is the source.
        classes: names of the classes.
        parts: of the pixels: `all`; `wanted`, those with a wanted class; `inside` and `outside` of the regions.
        curve_steps: the numbers of steps at which the records' curves have points; none without curves.
    """

    attack: str
    source: str
    white_box: dict[str, bool]
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    curve_steps: tuple[int, ...] = ()


def summarize(records: Sequence[Record], scored: Scored) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the table, see `COLUMNS`, and the summary: longer rows, and figures of the attack.

    Args:
        records: one for each image.
        scored: what their confusion matrices are about.
    """
    classes = len(scored.classes)
    totals = np.zeros((len(scored.white_box), len(scored.parts), len(CONDITIONS), classes, classes), np.int64)
    for record in records:
        totals += record.confusion
    counts = class_counts(totals)
    rows, networks = [], []
    for number, (name, white_box) in enumerate(scored.white_box.items()):
        of = {
            (part, condition): counts[number, place, which]
            for place, part in enumerate(scored.parts)
            for which, condition in enumerate(CONDITIONS)
        }
        clean, adversarial = of["all", "clean"], of["all", "adversarial"]
        row = {
            "attack": scored.attack,
            "source": scored.source,
            "target": name,
            "white_box": white_box,
            "images": sum(name not in record.failed for record in records),
            "clean_miou": _number(miou(clean)),
            "adversarial_miou": _number(miou(adversarial)),
            "drop": _number(miou(clean) - miou(adversarial)),
            "clean_accuracy": _number(accuracy(clean)),
            "adversarial_accuracy": _number(accuracy(adversarial)),
        }
        if "wanted" in scored.parts:
            for column, condition in zip(SUCCESS_COLUMNS, CONDITIONS, strict=True):
                row[column] = _number(accuracy(of["wanted", condition]))
        if "inside" in scored.parts:
            for column in REGION_COLUMNS:
                part, condition, _ = column.split("_")
                row[column] = _number(miou(of[part, condition]))
        rows.append(row)
        more: dict[str, Any] = {}
        for condition in CONDITIONS:
            more[f"{condition}_miou_union"] = _number(miou_union(of["all", condition]))
        for condition in CONDITIONS:
            labelled = of["all", condition][1] > 0
            values = map(_number, np.where(labelled, iou(of["all", condition]), np.nan))
            more[f"{condition}_iou"] = dict(zip(scored.classes, values, strict=True))
        if flips := _flips(records, number, name):
            more["flips"] = flips
        networks.append(row | more)
    norms = [255 * float(record.figures["linf"][-1]) for record in records if "linf" in record.figures]
    summary = {
        "attack": scored.attack,
        "source": scored.source,
        "images": len(records),
        "targets": networks,
        "perturbation": _perturbation(records),
        **({"minimal_norm": _minimal_norm(norms)} if norms else {}),
        "passes_per_image": {
            kind: _mean([record.passes[kind] for record in records]) for kind in ("forward", "backward")
        },
        "curves": _curves(records),
        **({"step_curve": _step_curve(records, scored)} if scored.curve_steps else {}),
    }
    failed = [{"target": target, "name": record.name, "error": error}
              for record in records for target, error in record.failed.items()]  # fmt: skip
    if failed:
        summary["failed"] = failed
    return rows, summary


def _flips(records: Sequence[Record], number: int, name: str) -> dict[str, Any]:
    """Where the pixels of a network flipped: `images` that say so, and by `BINS` the sums of the `STATES` over them."""
    known = [record.flips for record in records if record.flips and name not in record.failed]
    if not known:
        return {}
    flips: dict[str, Any] = {"images": len(known)}
    for kind, bins in BINS.items():
        sums = sum(counts[kind][number] for counts in known)
        flips[kind] = {state: dict(zip(bins, sums[place].tolist(), strict=True)) for place, state in enumerate(STATES)}
    return flips


def _perturbation(records: Sequence[Record]) -> dict[str, float | None]:
    """`linf`: the largest of all images; `linf_median` over images: the figure of minimal-norm attacks; means."""
    linf = [record.size["linf"] for record in records]
    return {
        "linf": max(linf, default=None),
        "linf_median": median(linf) if linf else None,
        "l2": _mean([record.size["l2"] for record in records]),
        "psnr": _mean([record.size["psnr"] for record in records]),
    }


def _minimal_norm(norms: list[float]) -> dict[str, float | None]:
    """Share of images with a solution, and the median of the solutions' norms, where none counts as infinite."""
    norms = sorted(math.inf if math.isnan(norm) else norm for norm in norms)
    return {
        "solved": sum(map(math.isfinite, norms)) / len(norms),
        "median_linf": _number(median(norms)),
    }


def _curves(records: Sequence[Record]) -> dict[str, list[float | None]]:
    """Curves over the steps: means over the images; for `stage_two`, how many they are."""
    curves: dict[str, list[float | None]] = {}
    steps = max((len(values) for record in records for values in record.figures.values()), default=0)
    for name in sorted({name for record in records for name in record.figures}):
        curves[name] = []
        for step in range(steps):
            values = [float(record.figures[name][step]) for record in records
                      if name in record.figures and step < len(record.figures[name])]  # fmt: skip
            known = [value for value in values if not math.isnan(value)]
            curves[name].append((math.fsum(known) if name == "stage_two" else _mean(known)) if known else None)
    return curves


def _step_curve(records: Sequence[Record], scored: Scored) -> dict[str, Any]:
    """Adversarial mIoU of each network after some numbers of steps."""
    classes = len(scored.classes)
    totals = np.zeros((len(scored.white_box), len(scored.curve_steps), classes, classes), np.int64)
    for record in records:
        assert record.curve is not None
        totals += record.curve
    curves = [list(map(_number, points)) for points in miou(class_counts(totals))]
    return {"steps": list(scored.curve_steps), "targets": dict(zip(scored.white_box, curves, strict=True))}


def _mean(values: Sequence[float]) -> float | None:
    return _number(math.fsum(values) / len(values)) if values and all(map(math.isfinite, values)) else None


def _number(value: np.ndarray | float) -> float | None:
    """The number as a float; None if it is not finite (a class without labels, the PSNR of an unchanged image)."""
    number = float(value)
    return number if math.isfinite(number) else None

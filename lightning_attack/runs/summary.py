"""From the records of single images to the summary of a run.

All sums are exact, so that the figures depend neither on the order of the images nor on batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from lightning_attack.metrics.flips import BINS, STATES
from lightning_attack.metrics.iou import abstained, accuracy, iou, miou, miou_union
from lightning_attack.runs.records import Record

COLUMNS = (
    "attack", "source", "target", "white_box", "images", "clean_miou", "adversarial_miou", "drop",
    "clean_accuracy", "adversarial_accuracy",
)  # fmt: skip
CONDITIONS = ("clean", "adversarial")
MASKS, PREDICTED = "masks", "clean prediction of the source"
"""Where labels come from, in `transfer.json`."""
SUCCESS_COLUMNS = ("clean_success", "success")
ABSTAINED_COLUMNS = ("clean_abstained", "abstained")
REGION_COLUMNS = tuple(f"{part}_{condition}_miou" for part in ("inside", "outside") for condition in CONDITIONS)


@dataclass(frozen=True)
class Scored:
    """What the counts of a run's records are about.

    Attributes:
        attack: name of the attack.
        source: name of the source.
        white_box: for each scored network, by name, whether it is the source.
        classes: names of the classes.
        parts: of the pixels: `all`; `wanted`, those with a wanted class; `inside` and `outside` of the regions.
        curve_steps: the numbers of steps at which the records' curves have points; none without curves.
        abstains: whether a scored network may abstain from single pixels.
    """

    attack: str
    source: str
    white_box: dict[str, bool]
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    curve_steps: tuple[int, ...] = ()
    abstains: bool = False


def summarize(records: Iterable[Record], scored: Scored) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the table, see `COLUMNS`, and the summary: longer rows, and figures of the attack.

    Args:
        records: one for each image; they are looked at one after the other, and none is kept.
        scored: what they are about.
    """
    totals = Totals(scored)
    for record in records:
        totals.add(record)
    return totals.summary()


class Totals:
    """Sums over the records of a run, added one by one; what they take does not grow with images times classes.

    Args:
        scored: what the records are about.

    Attributes:
        images: how many were added.
        clean: confusion matrices of all clean images, (networks, C, C).
        labelled: of each class the labelled pixels, (C,).
        having: and in how many images it has some, (C,).
        seconds: of all attacks.
        scoring: of all networks.
        memory: the largest share of an image in the attack's peak, in bytes; None where none is known.
        failed: targets that could not be scored on an image: `target`, `name` of the image and `error`.
    """

    def __init__(self, scored: Scored) -> None:
        networks, classes = len(scored.white_box), len(scored.classes)
        self._scored = scored
        self._counts = np.zeros((networks, len(scored.parts), len(CONDITIONS), 3, classes), np.int64)
        self._curve = np.zeros((networks, len(scored.curve_steps), 3, classes), np.int64)
        self._flips = {kind: np.zeros((networks, len(STATES), len(bins)), np.int64) for kind, bins in BINS.items()}
        self._flips_of = np.zeros(networks, np.int64)
        self._failures = np.zeros(networks, np.int64)
        self._sizes: dict[str, list[float]] = {"linf": [], "l2": [], "psnr": []}
        self._passes: dict[str, list[float]] = {"forward": [], "backward": []}
        self._figures: dict[str, list[np.ndarray]] = {}
        self.images = 0
        self.clean = np.zeros((networks, classes, classes), np.int64)
        self.labelled = np.zeros(classes, np.int64)
        self.having = np.zeros(classes, np.int64)
        self.seconds = self.scoring = 0.0
        self.memory: float | None = None
        self.failed: list[dict[str, str]] = []

    def add(self, record: Record) -> None:
        """Add the record of another image."""
        self.images += 1
        self._counts += record.counts
        record.clean.add_to(self.clean)
        # A network that failed on an image has counted nothing there.
        labels = record.counts[:, 0, 0, 1].max(0)
        self.labelled += labels
        self.having += labels > 0
        if self._scored.curve_steps:
            assert record.curve is not None
            self._curve += record.curve
        scored = np.array([name not in record.failed for name in self._scored.white_box])
        self._failures += ~scored
        if record.flips:
            self._flips_of += scored
            for kind, sums in self._flips.items():
                sums[scored] += record.flips[kind][scored]
        for values, kept in ((record.size, self._sizes), (record.passes, self._passes)):
            for name, own in kept.items():
                own.append(values[name])
        for name, steps in record.figures.items():
            self._figures.setdefault(name, []).append(steps)
        self.seconds += record.seconds
        self.scoring += record.scoring
        if record.memory is not None:
            self.memory = max(record.memory, self.memory or 0.0)
        self.failed += [{"target": target, "name": record.name, "error": error}
                        for target, error in record.failed.items()]  # fmt: skip

    def summary(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """See `summarize`."""
        scored, counts = self._scored, self._counts.astype(np.float64)
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
                "images": self.images - int(self._failures[number]),
                "clean_miou": _number(miou(clean)),
                "adversarial_miou": _number(miou(adversarial)),
                "drop": _number(miou(clean) - miou(adversarial)),
                "clean_accuracy": _number(accuracy(clean)),
                "adversarial_accuracy": _number(accuracy(adversarial)),
            }
            if scored.abstains:
                for column, condition in zip(ABSTAINED_COLUMNS, CONDITIONS, strict=True):
                    row[column] = _number(abstained(of["all", condition]))
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
            if self._flips_of[number]:
                more["flips"] = self._flips_of_network(number)
            networks.append(row | more)
        norms = [255 * float(steps[-1]) for steps in self._figures.get("linf", ())]
        linf = self._sizes["linf"]
        summary = {
            "attack": scored.attack,
            "source": scored.source,
            "images": self.images,
            "targets": networks,
            "perturbation": {
                # The largest of all images; the median is the figure of minimal-norm attacks.
                "linf": max(linf, default=None),
                "linf_median": median(linf) if linf else None,
                "l2": _mean(self._sizes["l2"]),
                "psnr": _mean(self._sizes["psnr"]),
            },
            **({"minimal_norm": _minimal_norm(norms)} if norms else {}),
            "passes_per_image": {kind: _mean(values) for kind, values in self._passes.items()},
            "curves": self._curves(),
            **({"step_curve": self._step_curve()} if scored.curve_steps else {}),
        }
        if self.failed:
            summary["failed"] = self.failed
        return rows, summary

    def _flips_of_network(self, number: int) -> dict[str, Any]:
        """Where the pixels of a network flipped: `images` that say so, and by `BINS` their sums of the `STATES`."""
        flips: dict[str, Any] = {"images": int(self._flips_of[number])}
        for kind, bins in BINS.items():
            sums = self._flips[kind][number]
            flips[kind] = {
                state: dict(zip(bins, sums[place].tolist(), strict=True)) for place, state in enumerate(STATES)
            }
        return flips

    def _curves(self) -> dict[str, list[float | None]]:
        """Curves over the steps: means over the images; for `stage_two`, how many they are."""
        curves: dict[str, list[float | None]] = {}
        steps = max((len(values) for own in self._figures.values() for values in own), default=0)
        for name in sorted(self._figures):
            curves[name] = []
            for step in range(steps):
                values = (float(one[step]) for one in self._figures[name] if step < len(one))
                known = [value for value in values if not math.isnan(value)]
                curves[name].append((math.fsum(known) if name == "stage_two" else _mean(known)) if known else None)
        return curves

    def _step_curve(self) -> dict[str, Any]:
        """Adversarial mIoU of each network after some numbers of steps."""
        curves = [list(map(_number, points)) for points in miou(self._curve.astype(np.float64))]
        return {
            "steps": list(self._scored.curve_steps),
            "targets": dict(zip(self._scored.white_box, curves, strict=True)),
        }


def _minimal_norm(norms: list[float]) -> dict[str, float | None]:
    """Share of images with a solution, and the median of the solutions' norms, where none counts as infinite."""
    norms = sorted(math.inf if math.isnan(norm) else norm for norm in norms)
    return {
        "solved": sum(map(math.isfinite, norms)) / len(norms),
        "median_linf": _number(median(norms)),
    }


def _mean(values: Sequence[float]) -> float | None:
    return _number(math.fsum(values) / len(values)) if values and all(map(math.isfinite, values)) else None


def _number(value: np.ndarray | float) -> float | None:
    """The number as a float; None if it is not finite (a class without labels, the PSNR of an unchanged image)."""
    number = float(value)
    return number if math.isfinite(number) else None

"""`TransferMetrics`: how well each network stands up, as table, CSV, JSON and TensorBoard scalars."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_attack.callbacks.distributed import gather
from lightning_attack.files import complete
from lightning_attack.metrics import PerturbationSize, SegmentationScores
from lightning_attack.module import AttackModule

COLUMNS = (
    "attack", "source", "target", "white_box", "images", "clean_miou", "adversarial_miou", "drop",
    "clean_accuracy", "adversarial_accuracy",
)  # fmt: skip
CONDITIONS = ("clean", "adversarial")
SUCCESS_COLUMNS = ("clean_success", "success")
REGION_COLUMNS = tuple(f"{part}_{condition}_miou" for part in ("inside", "outside") for condition in CONDITIONS)
_TAGS = {
    "clean/miou": "clean_miou", "adversarial/miou": "adversarial_miou", "drop/miou": "drop",
    "adversarial/success": "success",
}  # fmt: skip
_PACKAGES = ("torch", "lightning", "torchmetrics", "segmentation-models-pytorch")


class TransferMetrics(Callback):
    """Count predictions against labels for every network, clean and adversarial; report at the end.

    Into the run's folder go `transfer.csv` (one row per network, see `COLUMNS`) and `transfer.json` (the rows with
    IoU per class and torchmetrics' union mIoU, perturbation sizes, passes, seconds, versions, settings and the curves
    over the attack's steps). All shares are in [0, 1]. Loggers get `adversarial/miou/<target>`, `clean/...`, `drop/...`
    and, per attack step, `steps/loss`, `steps/p_t`, ...

    A targeted run adds the columns `SUCCESS_COLUMNS`: the share of pixels with a wanted class that are predicted so,
    before and after. A run with `data.region_masks` adds `REGION_COLUMNS`: mIoU over the pixels inside and outside.

    An attack that looks for the smallest norm (its log has `linf`) adds `minimal_norm` to `transfer.json`: the share of
    images with a solution, and the median of the norms of the attack's own float images, in 1/255.

    After the run `rows` holds the rows and `report` the content of `transfer.json`.

    Args:
        folder: where the files go; None = the run's folder (`trainer.log_dir`).
        table: whether the table is printed at the end.
    """

    def __init__(self, folder: str | None = None, table: bool = True) -> None:
        self.folder, self.table = folder, table
        self.rows: list[dict[str, Any]] = []
        self.report: dict[str, Any] = {}
        self._folder = Path()

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        log_dir = trainer.log_dir  # talks to the other processes: all of them must ask
        self._folder = Path(self.folder or log_dir or ".")

    def on_predict_start(self, trainer: Trainer, pl_module: AttackModule) -> None:
        # Not in setup: only now the module is on its device. All keys now and in one order, because compute() meets the
        # other processes metric by metric.
        self._parts = ["all"]
        if pl_module.target_labels is not None:
            self._parts.append("wanted")
        if getattr(getattr(trainer, "datamodule", None), "region_masks", None) is not None:
            self._parts += ["inside", "outside"]
        self._scores = {
            (number, part, condition): SegmentationScores(pl_module.num_classes).to(pl_module.device)
            for number in range(len(pl_module.target_names))
            for part in self._parts
            for condition in CONDITIONS
        }
        self._size = PerturbationSize().to(pl_module.device)
        self._totals: dict[str, float] = defaultdict(float)
        self._curves: list[dict[str, list[float]]] = []
        self._norms: list[float] = []
        self._started = time.perf_counter()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: dict[str, Any], batch: dict[str, Any], *_: Any
    ) -> None:
        images = batch["image"]
        for part in self._parts:
            labels = _labels(part, outputs, batch)
            for number, name in enumerate(pl_module.target_names):
                for condition in CONDITIONS:
                    self._scores[number, part, condition].update(outputs["preds"][name][condition], labels)
        self._size.update(outputs["adversarial"], images)
        self._totals["images"] += len(images)
        self._totals["attack seconds"] += outputs["seconds"]
        for kind, passes in outputs["passes"].items():
            self._totals[f"{kind} passes"] += passes * len(images)
        for step, figures in enumerate(outputs["figures"]):
            if step == len(self._curves):
                self._curves.append({})
            for name, values in figures.items():
                values = values.cpu().double()  # not every device has float64
                known = values[~values.isnan()]
                sums = self._curves[step].setdefault(name, [0.0, 0])
                sums[0] += float(known.sum())
                sums[1] += len(known)
        if outputs["figures"] and "linf" in outputs["figures"][-1]:
            self._norms += (255 * outputs["figures"][-1]["linf"].cpu().double()).tolist()

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: AttackModule) -> None:
        scores = {key: metric.compute() for key, metric in self._scores.items()}
        size = {name: _number(value) for name, value in self._size.compute().items()}
        totals = _sum(gather(dict(self._totals)))
        curves = _merge(gather(self._curves))
        norms = [norm for part in gather(self._norms) for norm in part]
        if not trainer.is_global_zero:
            return
        classes = getattr(getattr(trainer, "datamodule", None), "classes", None)
        classes = classes or tuple(map(str, range(pl_module.num_classes)))
        self.rows, networks = [], []
        for number, name in enumerate(pl_module.target_names):
            clean, adversarial = (scores[number, "all", condition] for condition in CONDITIONS)
            row = {
                "attack": pl_module.attack.name,
                "source": pl_module.source.name,
                "target": name,
                "white_box": pl_module.white_box[name],
                "images": int(totals["images"]),
                "clean_miou": _number(clean["miou"]),
                "adversarial_miou": _number(adversarial["miou"]),
                "drop": _number(clean["miou"] - adversarial["miou"]),
                "clean_accuracy": _number(clean["accuracy"]),
                "adversarial_accuracy": _number(adversarial["accuracy"]),
            }
            if "wanted" in self._parts:
                for column, condition in zip(SUCCESS_COLUMNS, CONDITIONS, strict=True):
                    row[column] = _number(scores[number, "wanted", condition]["accuracy"])
            if "inside" in self._parts:
                for column in REGION_COLUMNS:
                    part, condition, _ = column.split("_")
                    row[column] = _number(scores[number, part, condition]["miou"])
            self.rows.append(row)
            more: dict[str, Any] = {}
            for condition, score in zip(CONDITIONS, (clean, adversarial), strict=True):
                more[f"{condition}_miou_union"] = _number(score["miou_union"])
            for condition, score in zip(CONDITIONS, (clean, adversarial), strict=True):
                more[f"{condition}_iou"] = dict(zip(classes, map(_number, score["iou"]), strict=True))
            networks.append(row | more)
        self.report = {
            "attack": pl_module.attack.name,
            "source": pl_module.source.name,
            "images": int(totals["images"]),
            "targets": networks,
            "perturbation": size,
            **({"minimal_norm": _minimal_norm(norms)} if norms else {}),
            "passes_per_image": {kind: totals[f"{kind} passes"] / totals["images"] for kind in ("forward", "backward")},
            "seconds": {"run": time.perf_counter() - self._started, "attack": totals["attack seconds"]},
            "curves": curves,
            "settings": {"attack": pl_module.attack.settings(), "quantize": pl_module.quantize, "seed": pl_module.seed},
            "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        }
        self._write()
        self._log(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: AttackModule) -> None:
        if trainer.is_global_zero and self.table:
            console = Console()
            console.print(self._table())
            if "minimal_norm" in self.report:
                found = self.report["minimal_norm"]
                norm = "none" if found["median_linf"] is None else f"{found['median_linf']:.3g}/255"
                console.print(f"Solved: {found['solved']:.1%} of the images; median L-inf norm: {norm}")
            console.print(f"Results: {self._folder}", soft_wrap=True)

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        for name, content in (("transfer.csv", text.getvalue()), ("transfer.json", json.dumps(self.report, indent=2))):
            with complete(self._folder / name) as path:
                path.write_text(content)

    def _log(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            for row in self.rows:
                for tag, column in _TAGS.items():
                    if row.get(column) is not None:
                        logger.log_metrics({f"{tag}/{row['target']}": row[column]}, step=0)
            for name, curve in self.report["curves"].items():
                for step, value in enumerate(curve):
                    if value is not None:
                        logger.log_metrics({f"steps/{name}": value}, step=step)

    def _table(self) -> Table:
        first = self.rows[0]
        title = f"{first['attack']} on {first['source']}, {first['images']} images: mIoU in percent (lower = stronger)"
        table = Table("target", title=title)
        columns = {"clean": "clean_miou", "adversarial": "adversarial_miou", "drop": "drop"}
        columns |= {name: name for name in ("success", "inside_adversarial_miou", "outside_adversarial_miou")
                    if name in first}  # fmt: skip
        for heading in columns:
            table.add_column(heading, justify="right")
        for row in self.rows:
            numbers = (row[column] for column in columns.values())
            cells = ["-" if number is None else f"{100 * number:.2f}" for number in numbers]
            table.add_row(row["target"] + (" (white box)" if row["white_box"] else ""), *cells)
        return table


def _labels(part: str, outputs: dict[str, Any], batch: dict[str, Any]) -> Tensor:
    """What predictions are counted against, (B, H, W); 255 = not counted."""
    if part == "wanted":
        return outputs["target_labels"]
    if part == "all":
        return outputs["labels"]
    outside = ~batch["region"] if part == "inside" else batch["region"]
    return outputs["labels"].masked_fill(outside, 255)


def _number(value: Tensor | float) -> float | None:
    """A plain number; None where there is none (a class without labels, the PSNR of an unchanged image)."""
    number = float(value)
    return number if math.isfinite(number) else None


def _minimal_norm(norms: list[float]) -> dict[str, float | None]:
    """Share of images with a solution, and the median of the solutions' norms, where none counts as infinite."""
    norms = sorted(math.inf if math.isnan(norm) else norm for norm in norms)
    return {
        "solved": sum(map(math.isfinite, norms)) / len(norms),
        "median_linf": _number(median(norms)),
    }


def _sum(parts: list[dict[str, float]]) -> dict[str, float]:
    return {key: math.fsum(part.get(key, 0.0) for part in parts) for key in parts[0]}


def _merge(parts: list[list[dict[str, list[float]]]]) -> dict[str, list[float | None]]:
    """Curves over the steps from the sums of all processes: means over images; for `stage_two`, how many they are."""
    steps = max(map(len, parts))
    names = {name for part in parts for figures in part for name in figures}
    curves: dict[str, list[float | None]] = {name: [None] * steps for name in sorted(names)}
    for name, curve in curves.items():
        for step in range(steps):
            sums = [part[step][name] for part in parts if step < len(part) and name in part[step]]
            count = sum(number for _, number in sums)
            if count:
                total = math.fsum(value for value, _ in sums)
                curve[step] = total if name == "stage_two" else total / count
    return curves

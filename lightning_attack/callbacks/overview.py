"""`Overview`: a run at a glance in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_attack.callbacks.transfer_metrics import TransferMetrics
from lightning_attack.common.markdown import escape, table_row
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.names import CONFIG

LAYOUT = {
    "white box against transfer": {
        "adversarial mIoU over the first n images": ["Multiline", ["over_images/white_box/", "over_images/transfer/"]],
        "clean mIoU over the first n images": ["Multiline", ["over_images/clean/"]],
    },
    "the attack, step by step": {
        "loss": ["Multiline", ["steps/loss$"]],
        "share of pixels that are fooled": ["Multiline", ["steps/fooled$"]],
        "share of pixels in P_H, share of images in stage two": ["Multiline", ["steps/p_h$", "steps/stage_two_share$"]],
    },
}
"""Charts by group; tags are regular expressions. The same for all runs, so that their curves share charts."""


class Overview(Callback):
    """Give TensorBoard what numbers and images alone do not say; other loggers are left alone.

    - *HParams*: attack, eps and step size (in 1/255 for L-inf), source, steps, and as `trial/...` what is said less
      often (TensorBoard shows the first five by name), with the final `result/white_box_miou`, `result/transfer_miou`
      (means over the networks of a kind), `result/transfer_drop` and `result/backward_passes`: runs in one table;
    - *Custom scalars*: white box against transfer over the images, and the attack step by step;
    - *Text*: the table of the run, IoU of each class and network before and after, the command, and the configuration.

    Needs a `TransferMetrics` among the callbacks, and shows nothing without.

    Args:
        command: the command line of the run; empty = not shown.
    """

    place = 4

    def __init__(self, command: str = "") -> None:
        self.command = command

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        every = [one for one in trainer.callbacks if isinstance(one, TransferMetrics)]  # type: ignore[attr-defined]
        report = every[0].report if every else {}
        for logger in trainer.loggers if report else []:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(_hyperparameters(pl_module, report), _results(report), step=0)
                logger.experiment.add_custom_scalars(LAYOUT)
                for tag, text in self._texts(report, Path(logger.log_dir)):
                    logger.experiment.add_text(tag, text, 0)

    def _texts(self, report: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
        yield "result/miou", _miou_table(report)
        yield "result/per_class_iou", _class_table(report)
        if self.command:
            yield "run/command", _code(self.command)
        if (folder / CONFIG).is_file():
            yield "run/config", _code((folder / CONFIG).read_text())


def _hyperparameters(module: AttackModule, report: Mapping[str, Any]) -> dict[str, Any]:
    attack = module.attack.settings()
    norms = [norm for norm in _found(attack, "norm") if isinstance(norm, Mapping)]
    scale = 255 if all(norm.get("class") == "Linf" for norm in norms) else 1
    settings = {
        "attack": report["attack"],
        "eps": _one([norm.get("eps") for norm in norms], scale),
        "source": report["source"],
        "step_size": _one(list(_found(attack, "step_size")), scale),
        "steps": max(map(len, report["curves"].values()), default=0),
        "trial/norm": _one([norm.get("class") for norm in norms]),
        "trial/random_start": _one(list(_found(attack, "random_start"))),
        "trial/seed": module.seed,
        "trial/engine": module.engine or "auto",
        "trial/precision": module.precision,
        "trial/quantize": module.quantize,
        "trial/target_labels": None if module.target_labels is None else str(module.target_labels),
        "trial/images": report["images"],
    }
    return {name: value for name, value in settings.items() if value is not None}


def _found(settings: Any, key: str) -> Iterator[Any]:
    """What stands at a key anywhere in nested settings."""
    if isinstance(settings, Mapping):
        if key in settings:
            yield settings[key]
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from _found(value, key)


def _one(values: Sequence[Any], scale: float = 1) -> Any:
    """The value if there is one; an attack of several with different ones has none to show."""
    if not values or any(value != values[0] for value in values):
        return None
    return round(values[0] * scale, 6) if isinstance(values[0], float) else values[0]


def _results(report: Mapping[str, Any]) -> dict[str, float]:
    results = {"backward_passes": report["passes_per_image"]["backward"]}
    for name, column, white_box in (
        ("white_box_miou", "adversarial_miou", True),
        ("transfer_miou", "adversarial_miou", False),
        ("transfer_drop", "drop", False),
    ):
        values = [row[column] for row in report["targets"] if row["white_box"] == white_box]
        if values and None not in values:
            results[name] = mean(values)
    return {f"result/{name}": float(value) for name, value in results.items() if value is not None}


def _miou_table(report: Mapping[str, Any]) -> str:
    names = escape(f"{report['attack']} on {report['source']}")
    head = [f"{names}, {report['images']} images: mIoU in percent", ""]
    if report.get("partial"):
        head = [f"Partial: {report['missing']} images are missing.", "", *head]
    rows = [
        [row["target"] + (" (white box)" if row["white_box"] else ""),
         *(_percent(row[column]) for column in ("clean_miou", "adversarial_miou", "drop"))]
        for row in report["targets"]
    ]  # fmt: skip
    return "\n".join([*head, *_markdown(["target", "clean", "adversarial", "drop"], rows)])


def _class_table(report: Mapping[str, Any]) -> str:
    """A row for each class, a column for each network."""
    targets = report["targets"]
    rows = [
        [name, *(f"{_percent(row['clean_iou'][name])} → {_percent(row['adversarial_iou'][name])}" for row in targets)]
        for name in targets[0]["clean_iou"]
    ]
    table = _markdown(["class", *(row["target"] for row in targets)], rows)
    return "\n".join(["IoU in percent, clean → adversarial; - = the class is in no label", "", *table])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return [table_row(map(escape, heading)), table_row(rule), *(table_row(map(escape, cells)) for cells in rows)]


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())

"""`Overview`: hyperparameters, charts and tables of a run in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_attack.callbacks.transfer_metrics import TransferMetrics
from lightning_attack.common.counted import counted
from lightning_attack.common.first_process import in_first_process
from lightning_attack.common.markdown import escape, table_row
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.names import CONFIG
from lightning_attack.runs.summary_files import missing_words

LAYOUT = {
    "white box against transfer": {
        "adversarial mIoU over percent of the images": [
            "Multiline",
            ["over_images/white_box/", "over_images/transfer/"],
        ],
        "clean mIoU over percent of the images": ["Multiline", ["over_images/clean/"]],
    },
    "the attack, step by step": {
        "loss": ["Multiline", ["steps/loss$"]],
        "share of pixels that are fooled": ["Multiline", ["steps/fooled$"]],
        "share of pixels in P_H, share of images in stage two": ["Multiline", ["steps/p_h$", "steps/stage_two_share$"]],
    },
}
"""Charts by group; tags are regular expressions. The same for all runs, so that their curves share charts."""


class Overview(Callback):
    """Log hyperparameters, a page of charts, and tables to TensorBoard at the end of a run; other loggers get nothing.

    - *HParams*, to compare runs in one table: attack, eps (in 1/255 for L-inf), `miou_transfer` and `miou_white_box`
      (means over the other and over the white-box networks), and source. TensorBoard shows five columns, the first by
      name, and leaves results out of sight at the right: so these two figures are there twice. Then step size, steps,
      other settings as `trial/...`, and the results `result/white_box_miou`, `result/transfer_miou`,
      `result/transfer_drop` and `result/backward_passes`;
    - *Custom scalars*: white box against transfer over the images, and figures of the attack over its steps;
    - *Text*: the table of the run, IoU of each class and network before and after, the command, the configuration.

    Needs a `TransferMetrics` among the callbacks; without one it logs nothing.

    Args:
        command: the command line of the run; empty = not shown.
    """

    place = 4

    def __init__(self, command: str = "") -> None:
        self.command = command

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        in_first_process(trainer, lambda: self._log(trainer, pl_module))

    def _log(self, trainer: Trainer, pl_module: AttackModule) -> None:
        metrics = [callback for callback in trainer.callbacks if isinstance(callback, TransferMetrics)]  # type: ignore[attr-defined]
        summary = metrics[0].summary if metrics else {}
        for logger in trainer.loggers if summary else []:
            if isinstance(logger, TensorBoardLogger):
                results = _results(summary)
                logger.log_hyperparams(_hyperparameters(pl_module, summary) | _in_sight(results), results, step=0)
                logger.experiment.add_custom_scalars(LAYOUT)
                for tag, text in self._texts(summary, Path(logger.log_dir)):
                    logger.experiment.add_text(tag, text, 0)

    def _texts(self, summary: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
        yield "result/miou", _miou_table(summary)
        yield "result/per_class_iou", _class_table(summary)
        if self.command:
            yield "run/command", _code(self.command)
        if (folder / CONFIG).is_file():
            yield "run/config", _code((folder / CONFIG).read_text())


def _hyperparameters(module: AttackModule, summary: Mapping[str, Any]) -> dict[str, Any]:
    attack = module.attack.settings()
    norms = [norm for norm in _values_of(attack, "norm") if isinstance(norm, Mapping)]
    scale = 255 if all(norm.get("class") == "Linf" for norm in norms) else 1
    settings = {
        "attack": summary["attack"],
        "eps": _common_value([norm.get("eps") for norm in norms], scale),
        "source": summary["source"],
        "step_size": _common_value(list(_values_of(attack, "step_size")), scale),
        "steps": max(map(len, summary["curves"].values()), default=0),
        "trial/norm": _common_value([norm.get("class") for norm in norms]),
        "trial/random_start": _common_value(list(_values_of(attack, "random_start"))),
        "trial/seed": module.seed,
        "trial/engine": module.engine or "auto",
        "trial/precision": module.precision,
        "trial/quantize": module.quantize,
        "trial/target_labels": None if module.target_labels is None else str(module.target_labels),
        "trial/images": summary["images"],
    }
    return {name: value for name, value in settings.items() if value is not None}


def _values_of(settings: Any, key: str) -> Iterator[Any]:
    """All values of a key, at any depth of nested settings."""
    if isinstance(settings, Mapping):
        if key in settings:
            yield settings[key]
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from _values_of(value, key)


def _common_value(values: Sequence[Any], scale: float = 1) -> Any:
    """The value that all have in common, times `scale`; None where they differ, as for an attack made of several."""
    if not values or any(value != values[0] for value in values):
        return None
    return round(values[0] * scale, 6) if isinstance(values[0], float) else values[0]


def _results(summary: Mapping[str, Any]) -> dict[str, float]:
    results = {"backward_passes": summary["passes_per_image"]["backward"]}
    for name, column, white_box in (
        ("white_box_miou", "adversarial_miou", True),
        ("transfer_miou", "adversarial_miou", False),
        ("transfer_drop", "drop", False),
    ):
        values = [row[column] for row in summary["targets"] if row["white_box"] == white_box]
        if values and None not in values:
            results[name] = mean(values)
    return {f"result/{name}": float(value) for name, value in results.items() if value is not None}


def _in_sight(results: Mapping[str, float]) -> dict[str, float]:
    """The results that every table shows: under names that come early, and not as results."""
    names = {"miou_transfer": "result/transfer_miou", "miou_white_box": "result/white_box_miou"}
    return {name: results[result] for name, result in names.items() if result in results}


def _miou_table(summary: Mapping[str, Any]) -> str:
    names = escape(f"{summary['attack']} on {summary['source']}")
    head = [f"{names}, {counted(summary['images'], 'image')}: mIoU in percent", ""]
    if summary.get("partial"):
        head = [f"Partial: {missing_words(summary)}.", "", *head]
    rows = [
        [row["target"] + (" (white box)" if row["white_box"] else ""),
         *(_percent(row[column]) for column in ("clean_miou", "adversarial_miou", "drop"))]
        for row in summary["targets"]
    ]  # fmt: skip
    return "\n".join([*head, *_markdown(["target", "clean", "adversarial", "drop"], rows)])


def _class_table(summary: Mapping[str, Any]) -> str:
    """A row for each class, a column for each network."""
    targets = summary["targets"]
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

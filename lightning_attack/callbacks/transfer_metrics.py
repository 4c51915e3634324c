"""`TransferMetrics`: mIoU of each network before and after the attack, as table, CSV, JSON and scalars for loggers."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_attack import __version__
from lightning_attack.callbacks.background import WritingCallback
from lightning_attack.callbacks.image_records import image_records, label_maps, with_flips
from lightning_attack.callbacks.pace import was_stopped
from lightning_attack.callbacks.result_table import show_result
from lightning_attack.callbacks.run_folder import RunFolder
from lightning_attack.callbacks.scalars import OverImages, scalars
from lightning_attack.common.data_module import of_data
from lightning_attack.common.first_process import in_first_process
from lightning_attack.predict.batches import BatchError
from lightning_attack.predict.cost import device_facts
from lightning_attack.predict.defended import defence_facts
from lightning_attack.predict.doubt import LABELS_PREDICTED, Doubt, as_plain, refuse
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput
from lightning_attack.predict.prediction_doubts import (
    FIRST,
    doubts_about_classes,
    doubts_about_names,
    doubts_about_orientation,
    doubts_about_predictions,
)
from lightning_attack.runs.lock import FolderLock, lock_folder
from lightning_attack.runs.names import skipped_files
from lightning_attack.runs.records import Record
from lightning_attack.runs.segments import SegmentWriter
from lightning_attack.runs.skipped import read_skipped, write_skipped
from lightning_attack.runs.store import RecordStore, keep_records
from lightning_attack.runs.summary import (
    ABSTAINED_COLUMNS,
    COLUMNS,
    MASKS,
    PREDICTED,
    REGION_COLUMNS,
    SUCCESS_COLUMNS,
    Scored,
    Totals,
)
from lightning_attack.runs.summary_files import mark_partial, seconds_of, summary_before, write_summary

__all__ = ["ABSTAINED_COLUMNS", "COLUMNS", "REGION_COLUMNS", "SUCCESS_COLUMNS", "TransferMetrics"]
UNITS = {
    "miou, accuracy, iou, drop, success, abstained": "share in [0, 1]",
    "certified_radius": "L2 norm in [0, 1] pixels, over all values of an image",
    "perturbation.linf, perturbation.linf_median, minimal_norm.median_linf": "1/255 of the range of a pixel",
    "perturbation.l2": "length in [0, 1] pixels, over all values of an image",
    "perturbation.psnr": "dB",
    "seconds": "s, summed over all images (run: of the wall clock)",
    "peak_memory_mb_per_image": "MB",
    "settings.attack": "sizes such as eps and step_size in [0, 1] pixels",
}
"""Units of the figures in `transfer.json`, which has them too."""
_PACKAGES = ("torch", "lightning", "torchmetrics", "segmentation-models-pytorch")


class TransferMetrics(WritingCallback):
    """Compare the predictions of every network with the labels, on clean and on adversarial images.

    At the end, the run's folder gets `transfer.csv` (one row per network, see `COLUMNS`) and `transfer.json` (the rows
    with IoU per class and torchmetrics' union mIoU, sizes of the perturbation, passes, seconds, versions, settings and
    curves over the attack's steps). All shares are in [0, 1]. Loggers get the mIoU of each target and curves over the
    attack's steps and over the images, see `scalars`.

    Each image has a record below `records`, which its process appends after the PNG was written. All figures are sums
    over the records, so they do not depend on how the run was divided among processes or interrupted. While images are
    missing, rows have the column `partial`, and the summary says how many are `missing`; not with a `DataLoader` of
    one's own, whose photos are not counted. Images left out are listed in `skipped`. A `transfer.json` of before is
    `partial` as soon as records change.

    A targeted run adds the columns `SUCCESS_COLUMNS`: the share of pixels with a wanted class that are predicted so,
    before and after. A run with `data.region_masks` adds `REGION_COLUMNS`: mIoU over the pixels inside and outside. One
    with a target that may abstain (`models.Smoothed`) adds `ABSTAINED_COLUMNS`, the share of labelled pixels without a
    class, which count as wrong, and for that target `certified_radius` to `transfer.json`. Targets behind defences have
    `defence` there: the name of the `network`, `seed`, and `parts` with their settings.

    For each network, `flips` in `transfer.json` counts where correct pixels became wrong, by their distance to the
    edges of labels and by the size of their object: `right` were correct on the clean images, `flipped` of these are
    wrong on the adversarial ones, see `metrics.flips.flip_counts`.

    An attack that looks for the smallest norm (its log has `linf`) adds `minimal_norm` to `transfer.json`: the share of
    images with a solution, and the median of the norms of the attack's own float images, in 1/255.

    What looks wrong with the clean result (a network that is no better than chance, for example; see
    `predict.prediction_doubts`) is warned about before the first image, after the first few and at the end, below the
    table and under `warnings` in `transfer.json`. Where the labels are the source's own clean prediction, the title of
    the table says so, and rows have the column `labels`.

    After the run, `rows` holds the rows and `summary` the content of `transfer.json`.

    Args:
        folder: where the tables go; None = the run's folder (`trainer.log_dir`). Without a `RunFolder` the records lie
            there too, and a lock keeps a second run out until the first has ended.
        table: whether the table is printed at the end.
        strict: such warnings are errors.

    Raises:
        RunError: without a `RunFolder`, another run is under way in the folder.
        PlausibilityError: with `strict`, before the first image or after the first few; also if the labels are the
            source's clean prediction. What is found at the end is in `summary` only.
    """

    place = 3

    def __init__(self, folder: str | None = None, table: bool = True, strict: bool = False) -> None:
        self.folder, self.table, self.strict = folder, table, strict
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.incomplete = False
        """Whether the run left out images, or targets could not be scored on some."""
        self._folder = self._home = Path()
        self._segment = SegmentWriter(self._home, 0)
        self._lock: FolderLock | None = None  # in the first process, where no RunFolder has one

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        self._unlock()  # of a run that failed where no callback is told so
        self.rows, self.summary, self.incomplete = [], {}, False
        log_dir = trainer.log_dir  # broadcasts from the first process: all of them must ask
        self._folder = Path(self.folder or log_dir or ".")
        # With a RunFolder the records lie in it, wherever the tables go: it looks for them.
        self._owner = next((one for one in trainer.callbacks if isinstance(one, RunFolder)), None)  # type: ignore[attr-defined]
        self._home = Path(log_dir or ".") if self._owner else self._folder
        self._parts = ["all"]
        dataset = of_data(trainer, "dataset")
        self._labels_predicted = dataset is not None and dataset.classes is None
        self._masked: bool | None = None  # whether batches have masks; None: there was none
        self._said: set[str] = set()
        self._first: list[Record] | None = [] if trainer.is_global_zero else None
        self._first_maps: list[tuple[np.ndarray, np.ndarray]] = []
        self._turned: list[Doubt] = []
        self._raise_or_warn([*pl_module.doubts, *([LABELS_PREDICTED] if self._labels_predicted else [])])
        if pl_module.target_labels is not None:
            self._parts.append("wanted")
        if of_data(trainer, "region_masks") is not None:
            self._parts += ["inside", "outside"]
        self._started, self._before = time.perf_counter(), dict[str, Any]()
        in_first_process(trainer, lambda: self._go_on(trainer))
        self._segment = SegmentWriter(self._home, trainer.global_rank)

    def _go_on(self, trainer: Trainer) -> None:
        """Take over what earlier parts of the run have done, in the first process."""
        if self._owner is None:
            self._home.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self._home)
        finished: frozenset[int] = of_data(trainer, "finished", frozenset())
        before = summary_before(self._folder)
        if finished:
            self._before = before
        if before and self._changes(finished, of_data(trainer, "indices")):
            mark_partial(self._folder, before)  # until it is written anew: it is not about the records that follow
        keep_records(self._home, finished)
        for path in skipped_files(self._home):  # images that were left out are tried again
            path.unlink()

    def _changes(self, finished: frozenset[int], all_indices: Callable[[], Iterable[int]] | None) -> bool:
        """Whether records will be dropped or added."""
        if all_indices is None or not finished.issuperset(all_indices()):
            return True
        store = RecordStore(self._home)
        return bool(store.damaged) or {*store.indices} != finished

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: AttackOutput, batch: Any, *_: Any
    ) -> None:
        for index, name, error in outputs.skipped:
            write_skipped(self._home, index, name, error)
        if not len(outputs):
            return
        if self._masked is not None and self._masked == outputs.labels_predicted:
            raise BatchError(
                "some batches have a 'mask' and others have none; labels are masks or the source's clean predictions, "
                "not some of each"
            )
        self._masked = not outputs.labels_predicted
        if outputs.labels_predicted and not self._labels_predicted:
            self._labels_predicted = True
            self._raise_or_warn([LABELS_PREDICTED])
        records, (labels, preds) = image_records(pl_module, outputs, self._parts), label_maps(pl_module, outputs)
        self._look_at_first(records, labels, preds[:, 0], trainer, pl_module)
        # Last, so that an image has its record after its PNG, whatever the order of the callbacks.
        self.writer(trainer).submit_last(self._write_records, records, labels, preds, pl_module.target_names)

    def _write_records(
        self, records: Sequence[Record], labels: np.ndarray, preds: np.ndarray, targets: Sequence[str]
    ) -> None:
        for record, mask, predicted in zip(records, labels, preds, strict=True):
            self._segment.append(with_flips(record, mask, predicted, targets))

    def _look_at_first(
        self,
        records: Sequence[Record],
        labels: np.ndarray,
        clean_preds: np.ndarray,
        trainer: Trainer,
        module: AttackModule,
    ) -> None:
        """After the first images of the first process: before hours are spent on the others."""
        if self._first is None:
            return
        self._first += records
        self._first_maps += zip(labels, clean_preds, strict=True)
        if len(self._first) >= FIRST:
            clean = sum(record.clean.dense() for record in self._first)
            by_name = dict(zip(module.white_box, np.asarray(clean), strict=True))
            images, self._first = len(self._first), None
            first_labels, seen = zip(*self._first_maps, strict=True)
            self._first_maps.clear()
            seen_by = {name: [maps[row] for maps in seen] for row, name in enumerate(module.target_names)}
            self._turned = [] if self._labels_predicted else doubts_about_orientation(first_labels, seen_by)
            self._raise_or_warn(
                self._turned
                + doubts_about_predictions(by_name, _classes(trainer, module), self._labels_predicted, images)
            )

    def _raise_or_warn(self, doubts: Sequence[Doubt]) -> None:
        if self.strict:
            refuse(doubts)
        for doubt in doubts:
            if doubt.kind != LABELS_PREDICTED.kind:
                rank_zero_warn(doubt.message)
                self._said.add(doubt.message)

    def _doubts(self, totals: Totals, trainer: Trainer, module: AttackModule) -> list[Doubt]:
        """All doubts, once all images were seen."""
        classes = _classes(trainer, module)
        by_name = dict(zip(module.white_box, totals.clean, strict=True))
        turned = {doubt.network: doubt for doubt in (*self._turned_before(), *self._turned)}
        found = [
            *module.doubts,
            *turned.values(),
            *doubts_about_predictions(by_name, classes, self._labels_predicted),
        ]
        if self._labels_predicted:
            return found
        predicted = totals.clean.sum((0, 1))
        return [*found, *doubts_about_classes(totals.labelled, totals.having, predicted, classes)]

    def _turned_before(self) -> list[Doubt]:
        """What the first images of earlier parts of the run said of the orientation of masks."""
        said = self._before.get("warnings", ())
        return [Doubt(**one) for one in said if isinstance(one, dict) and one.get("kind") == "orientation"]

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        try:
            super().on_exception(trainer, pl_module, exception)
            self._segment.close()
        finally:
            self._unlock()

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        self._segment.close()
        # Not when the epoch ends: a process that had no batch does not see its end.
        trainer.strategy.barrier("all records are written")
        stopped = trainer.strategy.reduce_boolean_decision(was_stopped(trainer), all=False)
        try:
            in_first_process(trainer, lambda: self._sum_up(trainer, pl_module, stopped))
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock:
            self._lock.release()
        self._lock = None

    def _sum_up(self, trainer: Trainer, pl_module: AttackModule, stopped: bool) -> None:
        """Write and show the result of all records, in the first process.

        Args:
            trainer, pl_module: of the run.
            stopped: whether a process has left out batches.
        """
        all_indices = of_data(trainer, "indices")
        expected = None if all_indices is None else {*all_indices()}
        store = RecordStore(self._home)
        indices = [index for index in store.indices if expected is None or index in expected]
        dataset = of_data(trainer, "dataset")
        if self._masked is None and dataset is not None and indices:  # no image was attacked now, which would tell
            self._labels_predicted |= dataset[indices[0]].mask is None
        classes = _classes(trainer, pl_module)
        skipped = read_skipped(self._home)
        attack, source = pl_module.attack.name, pl_module.source_title
        steps = pl_module.curve.steps if pl_module.curve else ()
        scored = Scored(attack, source, pl_module.white_box, classes, tuple(self._parts), steps, pl_module.abstains)
        totals, over_images, names = Totals(scored), OverImages(len(indices)), dict[int, str]()
        for record in store.read(indices):
            names[record.index] = record.name
            totals.add(record)
            over_images.add(record)
        self.rows, self.summary = totals.summary()
        facts = defence_facts(pl_module.networks)
        for row in self.summary["targets"]:
            row |= facts.get(row["target"], {})
        self.summary["display_name"] = pl_module.attack.display_name
        self.summary["citations"] = {**pl_module.attack.citations}
        self.summary["labels"] = PREDICTED if self._labels_predicted else MASKS
        if self._labels_predicted:
            for row in self.rows:
                row["labels"] = PREDICTED
        doubts = [*self._doubts(totals, trainer, pl_module), *doubts_about_names(names)]
        self.summary["warnings"] = as_plain(doubts)
        if pl_module.notes:
            self.summary["notes"] = [*pl_module.notes]
        missing = 0 if expected is None else len(expected) - totals.images - len(skipped)
        if missing or (stopped and expected is None):
            for row in self.rows:
                row["partial"] = True
            self.summary |= {"partial": True} | ({"missing": missing} if missing else {})
        if skipped:
            self.summary["skipped"] = skipped
        self.incomplete = bool(skipped) or bool(totals.failed)
        self.summary |= {
            "seconds": {
                "run": seconds_of(self._before) + time.perf_counter() - self._started,
                "attack": totals.seconds,
                "scoring": totals.scoring,
            },
            "peak_memory_mb_per_image": None if totals.memory is None else totals.memory / 1e6,
            **({"data": facts_of_data()} if (facts_of_data := of_data(trainer, "facts")) else {}),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "units": UNITS,
            "device": device_facts(trainer.strategy.root_device, pl_module.exact),
            "settings": {"attack": pl_module.attack.settings(), "quantize": pl_module.quantize, "seed": pl_module.seed},
            "versions": {"lightning_attack": __version__, "python": platform.python_version()}
            | {name: version(name) for name in _PACKAGES},
        }
        if self._masked is None:  # where and with what the images were attacked, earlier
            self.summary |= {key: self._before[key] for key in ("device", "versions") if key in self._before}
        write_summary(self._folder, self.rows, self.summary)
        for logger in trainer.loggers:
            for name, value, step in scalars(self.summary, over_images):
                logger.log_metrics({name: value}, step=step)
        if self.table:
            owner = None if expected is None else self._owner  # only runs whose images have places go on
            show_result(self.rows, self.summary, self._folder, owner.how_to_go_on(trainer) if owner else "")
        else:
            for doubt in doubts:
                if doubt.message not in self._said:
                    rank_zero_warn(doubt.message)


def _classes(trainer: Trainer, module: AttackModule) -> tuple[str, ...]:
    """Names of the classes, by which figures are told apart; numbers where the data gives none."""
    names = of_data(trainer, "classes") or [""] * module.num_classes
    return tuple(
        name or (f"class {number}" if str(number) in names else str(number)) for number, name in enumerate(names)
    )

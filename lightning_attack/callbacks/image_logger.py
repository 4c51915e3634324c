"""`ImageLogger`: what happened to some of the images, side by side, for TensorBoard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_attack.callbacks.background import WritingCallback
from lightning_attack.common.data_module import of_data
from lightning_attack.common.first_process import in_first_process
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.pictures.captions import captioned, classes_in
from lightning_attack.pictures.panels import side_by_side
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput
from lightning_attack.runs.names import panel_files, panel_path
from lightning_attack.runs.panels import (
    ADVERSARIAL,
    CLEAN,
    DIFFERENCE,
    LABELS,
    Panel,
    Strip,
    keep_strips,
    panel_order,
    read_strip,
    with_classes,
    write_strip,
)

COLUMNS = 2
"""Panels in a row, where TensorBoard shows them: it makes all pictures as narrow as a hand."""
AT_HAND = 32
"""Strips that are kept in memory until TensorBoard is shown them; more, a few MB each, are read again."""


class ImageLogger(WritingCallback):
    """Show a strip of panels for each of the first `count` images, whichever process attacked them.

    Panels: clean | adversarial | difference | ground truth | for each network, source first, its prediction for the
    clean and for the adversarial image (see `panel_order`). Classes have PASCAL VOC's colours, ignored pixels and
    networks that failed are white, and the difference is grey where nothing changed. The strips lie below `panels`, so
    that a resumed run shows those of its first part; others that lie there are deleted.
    TensorBoard shows them as `images/<name>` in rows of two, with headings and the names of the classes that occur.

    Args:
        count: number of images; 0 = none.
        magnify: factor of the difference.
        width: widest panel in pixels; larger ones are shrunk.
    """

    place = 2

    def __init__(self, count: int = 8, magnify: float = 10.0, width: int = 256) -> None:
        self.count, self.magnify, self.width = count, magnify, width
        self._folder = Path()
        self._first: set[int] | None = None
        self._strips: dict[Path, Strip] = {}

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        self._folder = Path(trainer.log_dir or ".")  # talks to the other processes: all of them must ask
        self._strips = {}
        indices = of_data(trainer, "indices")
        self._first = None if indices is None else {*indices()[: self.count]}
        finished: frozenset[int] = of_data(trainer, "finished", frozenset())
        in_first_process(trainer, lambda: keep_strips(self._folder, finished))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: AttackOutput, batch: Any, *_: Any
    ) -> None:
        for row, index in enumerate(outputs.index.tolist()):
            if index < self.count if self._first is None else index in self._first:
                file = panel_path(self._folder, index)
                pixels = self._strip(pl_module, outputs, row).permute(1, 2, 0).numpy()
                strip = Strip(outputs.name[row], pixels, self.magnify)
                if len(self._strips) < AT_HAND:
                    self._strips[file] = strip
                self.writer(trainer).submit(write_strip, file, strip)

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        trainer.strategy.barrier("all panels are written")
        in_first_process(trainer, lambda: self._show_panels(trainer, pl_module))
        self._strips = {}

    def _show_panels(self, trainer: Trainer, pl_module: AttackModule) -> None:
        """Log the panels of all processes, in the first one."""
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        classes = of_data(trainer, "classes") or ()

        def show(file: Path) -> None:
            # Read are those of other processes and of earlier parts of the run, and those that were too many to keep.
            try:
                strip = self._strips[file] if file in self._strips else read_strip(file)
                legend = classes_in(with_classes(strip.pixels, pl_module.white_box), classes)
                headings = [_heading(panel, strip.magnify) for panel in panel_order(pl_module.white_box)]
                picture = captioned(strip.pixels, headings, COLUMNS, legend)
            except ValueError as error:  # a run does not end without its figures because of a picture
                rank_zero_warn(f"'{file}' is damaged, so TensorBoard does not show it: {error}")
                return
            for board in boards:
                board.add_image(f"images/{strip.name}", picture, dataformats="HWC")

        # Nearly all of their time goes into PNGs, read and made; the run has ended, and its processors are free.
        with ThreadPoolExecutor() as pool:
            list(pool.map(show, panel_files(self._folder) if boards else []))

    def _strip(self, module: AttackModule, outputs: AttackOutput, row: int) -> Tensor:
        clean, adversarial = outputs.image[row], outputs.adversarial[row]
        difference = 0.5 + self.magnify * (adversarial - clean)
        photos = {CLEAN: clean, ADVERSARIAL: adversarial, DIFFERENCE: difference}
        order = panel_order(module.white_box)
        maps = [_map(outputs, row, panel) for panel in order if panel.has_classes]
        return side_by_side([photos[panel.shows] for panel in order if not panel.has_classes], maps, self.width)


def _map(outputs: AttackOutput, row: int, panel: Panel) -> Tensor:
    """The label map of a panel; without classes where its network has failed."""
    if panel.network is None:
        return outputs.labels[row]
    found = outputs.preds[panel.network][panel.shows][row]
    return torch.full_like(found, IGNORE_INDEX) if panel.network in outputs.failed[row] else found


def _heading(panel: Panel, magnify: float | None) -> str:
    if panel.network:
        return f"{panel.network}\n{panel.shows}"
    factor = "" if magnify is None else f" x {magnify:g}"
    return {DIFFERENCE: f"{DIFFERENCE}{factor}", LABELS: "ground truth"}.get(panel.shows, panel.shows)

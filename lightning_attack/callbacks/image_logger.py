"""`ImageLogger`: what happened to some of the images, side by side, for TensorBoard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from lightning_attack.callbacks.background import WritingCallback
from lightning_attack.common.atomic import complete
from lightning_attack.pictures.captions import captioned, classes_in
from lightning_attack.pictures.panels import side_by_side
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput

PHOTOS = 3
"""Panels before those that show classes."""
COLUMNS = 4
"""Panels in a row, where TensorBoard shows them."""
AT_HAND = 32
"""Strips that are kept in memory until TensorBoard is shown them; more, a few MB each, are read again."""


class ImageLogger(WritingCallback):
    """Show a strip of panels for each of the first `count` images, whichever process attacked them.

    Panels: clean | adversarial | difference | ground truth | for each network, source first, its prediction for the
    clean and for the adversarial image. Classes have PASCAL VOC's colours, ignored pixels are white, and the difference
    is grey where nothing changed. The strips lie below `panels`, so that a resumed run shows those of its first part;
    TensorBoard shows them as `images/<name>` in rows of four, with headings and the names of the classes that occur.

    Args:
        count: number of images; 0 = none.
        magnify: factor of the difference.
        width: widest panel in pixels; larger ones are shrunk.
    """

    def __init__(self, count: int = 8, magnify: float = 10.0, width: int = 256) -> None:
        self.count, self.magnify, self.width = count, magnify, width
        self._folder = Path()
        self._first: set[int] | None = None
        self._strips: dict[Path, tuple[str, np.ndarray]] = {}

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        self._folder = Path(trainer.log_dir or ".") / "panels"  # talks to the other processes: all of them must ask
        self._strips = {}
        datamodule = getattr(trainer, "datamodule", None)
        indices = getattr(datamodule, "indices", None)
        self._first = None if indices is None else {*indices()[: self.count]}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: AttackOutput, batch: Any, *_: Any
    ) -> None:
        for row, index in enumerate(outputs.index.tolist()):
            if index < self.count if self._first is None else index in self._first:
                # The name is in the file, not the file's: it may have folders in it.
                file, name = self._folder / f"{index:08d}.png", outputs.name[row]
                strip = self._strip(pl_module, outputs, row).permute(1, 2, 0).numpy()
                if len(self._strips) < AT_HAND:
                    self._strips[file] = name, strip
                self.writer(trainer).submit(_write, file, name, strip)

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        trainer.strategy.barrier("all panels are written")
        if not trainer.is_global_zero:
            return
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        panels = ["clean", "adversarial", f"difference x {self.magnify:g}", "ground truth"]
        for name in _source_first(pl_module):
            panels += [f"{name}\nclean", f"{name}\nadversarial"]
        classes = getattr(getattr(trainer, "datamodule", None), "classes", None) or ()

        def show(file: Path) -> None:
            # Read are those of other processes and of earlier parts of the run, and those that were too many to keep.
            name, strip = self._strips[file] if file in self._strips else _read(file)
            maps = strip[:, strip.shape[1] // len(panels) * PHOTOS :]
            picture = captioned(strip, panels, COLUMNS, classes_in(maps, classes))
            for board in boards:
                board.add_image(f"images/{name}", picture, dataformats="HWC")

        # Nearly all of their time goes into PNGs, read and made; the run has ended, and its processors are free.
        with ThreadPoolExecutor() as pool:
            list(pool.map(show, sorted(self._folder.glob("*.png")) if boards else []))
        self._strips = {}

    def _strip(self, module: AttackModule, outputs: AttackOutput, row: int) -> Tensor:
        clean, adversarial = outputs.image[row], outputs.adversarial[row]
        difference = 0.5 + self.magnify * (adversarial - clean)
        labels = [outputs.labels[row]]
        for name in _source_first(module):
            labels += [outputs.preds[name]["clean"][row], outputs.preds[name]["adversarial"][row]]
        return side_by_side([clean, adversarial, difference], labels, self.width)


def _write(file: Path, name: str, strip: np.ndarray) -> None:
    info = PngInfo()
    info.add_text("name", name)
    with complete(file) as path:
        Image.fromarray(strip).save(path, format="png", compress_level=1, pnginfo=info)


def _read(file: Path) -> tuple[str, np.ndarray]:
    with Image.open(file) as image:
        return image.text["name"], np.array(image)  # type: ignore[attr-defined]


def _source_first(module: AttackModule) -> list[str]:
    return sorted(module.target_names, key=lambda name: not module.white_box[name])

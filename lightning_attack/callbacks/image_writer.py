"""`ImageWriter`: save the adversarial images as lossless PNG files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from lightning_attack.callbacks.background import WritingCallback
from lightning_attack.common.atomic import atomic_write
from lightning_attack.pictures.bytes import to_bytes
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput
from lightning_attack.runs.names import image_path, images_folder


class ImageWriter(WritingCallback):
    """Write `images/<name>.png` below the run's folder; names with folders in them make those folders.

    Values are rounded to 8 bits, never cut: cutting would lower values by a level and break the budget. Each file is
    complete when it appears, which is while the next batch is attacked. Every process writes the images that it has
    attacked.

    Args:
        folder: where `images` is made; None = in the run's.
        workers: how many images of a batch are compressed at a time, 1 or more.

    Raises:
        ValueError: workers < 1.
    """

    place = 1
    """Before `TransferMetrics`: an image has its record only after its file."""

    def __init__(self, folder: str | None = None, workers: int = 4) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: must be 1 or more")
        self.folder, self.workers = folder, workers
        self._folder = Path()
        self._known: set[Path] = set()  # folders that lie in the run's

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        # trainer.log_dir talks to the other processes: all of them must ask.
        log_dir = trainer.log_dir
        self._folder = Path(self.folder or log_dir or ".")
        self._known = set()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: AttackOutput, batch: Any, *_: Any
    ) -> None:
        if len(outputs):
            self.writer(trainer).submit(self._write_all, [*outputs.name], to_bytes(outputs.adversarial))

    def _write_all(self, names: list[str], images: Tensor) -> None:
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(self._write, names, images))

    def _write(self, name: str, image: Tensor) -> None:
        file = image_path(self._folder, name)
        if file.parent not in self._known:
            # The file itself may be a link: it is replaced.
            if not file.parent.resolve().is_relative_to(images_folder(self._folder).resolve()):
                raise OSError(f"'{file}' lies outside of the run's folder (a link?)")
            self._known.add(file.parent)
        with atomic_write(file) as path:
            save_png(image, path)


def save_png(image: Tensor, file: Path | BinaryIO) -> None:
    """Write an image, (3, H, W) uint8."""
    # Level 1 takes half the time of Pillow's own 6; attacked photos are noise, and 4 % is all that it costs.
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, format="png", compress_level=1)

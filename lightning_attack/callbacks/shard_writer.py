"""`ImageShards`: save the adversarial images in a few large files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_attack.callbacks.image_writer import ImageWriter, save_png
from lightning_attack.common.first_process import in_first_process
from lightning_attack.common.shards import ShardWriter
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.names import image_name, next_part, shard_path


class ImageShards(ImageWriter):
    """Append the images to a tar file of each process, `images/<part>_<process>.tar`; else as `ImageWriter`.

    The members are the PNG files that `ImageWriter` would write, under the same names. Each time that the run is
    started it begins new shards; where an image is attacked again, the one in the later part counts.
    """

    _shard: ShardWriter | None = None

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        # All processes have one part, which only the first can tell before any of them writes.
        part = in_first_process(trainer, lambda: next_part(self._folder))
        self._shard = ShardWriter(shard_path(self._folder, part, trainer.global_rank))

    def _write_all(self, names: list[str], images: Tensor) -> None:
        with ThreadPoolExecutor(self.workers) as pool:
            for name, content in zip(names, pool.map(_png, images), strict=True):
                self._shard.append(image_name(name), content)  # type: ignore[union-attr]  # setup has made it

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_epoch_end(trainer, pl_module)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._close()

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None


def _png(image: Tensor) -> bytes:
    content = BytesIO()
    save_png(image, content)
    return content.getvalue()

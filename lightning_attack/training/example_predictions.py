"""`ExamplePredictions`: what a network in training says about some photos, for TensorBoard."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_attack.common.data_module import of_data
from lightning_attack.pictures.captions import captioned, classes_in
from lightning_attack.pictures.panels import side_by_side


class ExamplePredictions(Callback):
    """Log photo | ground truth | prediction of the first photos of each validation, as `examples/<name>`.

    Classes have PASCAL VOC's colours, ignored pixels are white; the names of those that occur stand below. With
    several processes, only the first logs its photos.

    Args:
        count: number of photos; 0 = none.
        width: widest panel in pixels; larger ones are shrunk.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, count: int = 4, width: int = 256) -> None:
        if count < 0 or width < 1:
            raise ValueError(f"count={count} must be 0 or more, width={width} 1 or more")
        self.count, self.width = count, width
        self._shown = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, batch: dict[str, Any], *_: Any
    ) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not loggers or trainer.sanity_checking or not trainer.is_global_zero:
            return
        classes = of_data(trainer, "trained_classes") or ()
        for image, mask, prediction, name in zip(batch["image"], batch["mask"], outputs, batch["name"], strict=True):
            if self._shown == self.count:
                return
            self._shown += 1
            strip = side_by_side([image], [mask, prediction], self.width).permute(1, 2, 0).numpy()
            legend = classes_in(strip[:, strip.shape[1] // 3 :], classes)
            picture = captioned(strip, ["photo", "ground truth", "prediction"], 3, legend)
            for logger in loggers:
                logger.experiment.add_image(f"examples/{name}", picture, trainer.global_step, dataformats="HWC")

"""`ImageLogger`: what happened to some of the images, side by side, for TensorBoard."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_attack.callbacks.distributed import gather
from lightning_attack.callbacks.panels import side_by_side
from lightning_attack.module import AttackModule


class ImageLogger(Callback):
    """Log a strip of panels for each of the first `count` images, whichever process attacked them.

    Panels: clean | adversarial | difference | ground truth | for each network, source first, its prediction for the
    clean and for the adversarial image. The tag `images/panels` lists them. Classes have PASCAL VOC's colours, ignored
    pixels are white, and the difference is grey where nothing changed.

    Args:
        count: number of images; 0 = none.
        magnify: factor of the difference.
        width: widest panel in pixels; larger ones are shrunk.
    """

    def __init__(self, count: int = 8, magnify: float = 10.0, width: int = 256) -> None:
        self.count, self.magnify, self.width = count, magnify, width
        self._strips: dict[int, tuple[str, Tensor]] = {}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: dict[str, Any], batch: dict[str, Any], *_: Any
    ) -> None:
        for row, index in enumerate(batch["index"].tolist()):
            if len(self._strips) < self.count:  # in each process; the first of all are chosen at the end
                self._strips[index] = (batch["name"][row], self._strip(pl_module, outputs, batch["image"], row))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: AttackModule) -> None:
        strips = {index: strip for part in gather(self._strips) for index, strip in part.items()}
        self._strips = {}
        panels = ["clean", "adversarial", f"difference x {self.magnify:g}", "ground truth"]
        for name in _source_first(pl_module):
            panels += [f"{name}: clean", f"{name}: adversarial"]
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, TensorBoardLogger) and strips:
                logger.experiment.add_text("images/panels", " | ".join(panels))
                for index in sorted(strips)[: self.count]:
                    name, strip = strips[index]
                    logger.experiment.add_image(f"images/{name}", strip)

    def _strip(self, module: AttackModule, outputs: dict[str, Any], clean: Tensor, row: int) -> Tensor:
        adversarial = outputs["adversarial"][row]
        difference = 0.5 + self.magnify * (adversarial - clean[row])
        labels = [outputs["labels"][row]]
        for name in _source_first(module):
            labels += [outputs["preds"][name]["clean"][row], outputs["preds"][name]["adversarial"][row]]
        return side_by_side([clean[row], adversarial, difference], labels, self.width)


def _source_first(module: AttackModule) -> list[str]:
    return sorted(module.target_names, key=lambda name: not module.white_box[name])

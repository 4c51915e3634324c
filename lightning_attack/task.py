"""`SegmentationTask`: train a network, to have a source or a target of one's own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_attack.metrics import SegmentationScores
from lightning_attack.models.wrapper import ModelError, as_segmentation_model


class SegmentationTask(LightningModule):
    """Cross-entropy, AdamW, one-cycle learning rate, mIoU on the validation photos after every epoch.

    One-cycle: L. N. Smith, N. Topin, "Super-Convergence", 2017, arXiv 1708.07120.

    Args:
        network: the network to train; takes [0, 1] images, as `SMPModel` does.
        lr: largest learning rate of the cycle, above 0.
        weight_decay: of AdamW.
        warmup: share of the steps in which the rate rises, in (0, 1).

    Raises:
        ValueError: lr or warmup is out of range.
        ModelError: the network does not say its number of classes.
    """

    def __init__(self, network: nn.Module, lr: float = 1e-3, weight_decay: float = 1e-2, warmup: float = 0.1) -> None:
        super().__init__()
        if lr <= 0 or not 0 < warmup < 1:
            raise ValueError(f"lr={lr} must be above 0, warmup={warmup} between 0 and 1")
        self.network = as_segmentation_model(network)
        if self.network.num_classes is None:
            raise ModelError(f"network '{self.network.name}' needs num_classes for training")
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.scores = SegmentationScores(self.network.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images in [0, 1]."""
        return self.network(images)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch["image"]).float(), batch["mask"], ignore_index=self.scores.ignore_index)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.scores.update(self(batch["image"]).argmax(1), batch["mask"])

    def on_validation_epoch_end(self) -> None:
        # compute() has summed over the processes already; sync_dist keeps Lightning from warning about it.
        scores = self.scores.compute()
        self.log("val/miou", scores["miou"].float(), prog_bar=True, sync_dist=True)
        self.log("val/accuracy", scores["accuracy"].float(), sync_dist=True)
        self.scores.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, steps, pct_start=self.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

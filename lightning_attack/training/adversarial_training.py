"""`AdversarialTraining`: train on adversarial images, for networks that withstand attacks."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lightning_attack.attacks.base import Attack
from lightning_attack.attacks.random import image_seeds
from lightning_attack.training.task import SegmentationTask


class AdversarialTraining(Callback):
    """Replace a part of each training batch by adversarial images, made on the network as it is at that step.

    Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
    arXiv 1706.06083; for segmentation J. Gu et al., ECCV 2022, arXiv 2207.12391 (SegPGD-AT: half of each batch, 3 or 7
    steps).

    During the attack the network is in eval mode, so that its batch statistics do not change. The progress bar shows
    `attack_share`, the share of the time that attacks take.

    Args:
        attack: any attack on a single network.
        fraction: share of each batch that is replaced, in (0, 1], rounded up.
        seed: seed of the attack's randomness; each image of each step has its own.

    Raises:
        ValueError: fraction is out of range.
    """

    def __init__(self, attack: Attack, fraction: float = 0.5, seed: int = 0) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: must be above 0 and at most 1")
        self.attack, self.fraction, self.seed = attack, fraction, seed
        self._spent, self._began = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: SegmentationTask) -> None:  # type: ignore[override]
        self.attack.check_model(pl_module.network)
        self._spent, self._began = 0.0, time.perf_counter()

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: SegmentationTask, batch: dict[str, Any], batch_idx: int
    ) -> None:
        began = time.perf_counter()
        images, labels = batch["image"], batch["mask"]
        count = -int(-len(images) * self.fraction // 1)
        # By the step too, so that a photo meets another start in each epoch.
        seeds = image_seeds(self.seed, batch["index"][:count] + 2**32 * trainer.global_step)
        # In eval mode the network may run on windows; training uses whole crops, and so does the attack.
        windows, pl_module.network.windows = pl_module.network.windows, None
        attacked = self.attack(pl_module.network, images[:count], labels[:count], seeds)
        pl_module.network.windows = windows
        batch["image"] = torch.cat([attacked, images[count:]])
        self._spent += time.perf_counter() - began
        share = self._spent / (time.perf_counter() - self._began)
        pl_module.log("attack_share", share, prog_bar=True, batch_size=len(images))

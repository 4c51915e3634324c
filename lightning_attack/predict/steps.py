"""What the first two steps for a batch, clean predictions and attack, hand to the third, the scores."""

from __future__ import annotations

from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_attack.attacks.base import Attack
from lightning_attack.common.counted import counted
from lightning_attack.predict.step_curve import WatchedSteps


@dataclass
class CleanStep:
    """First step for a batch: what the networks predict on its clean images.

    Attributes:
        preds: classes by network, each (B, H, W).
        labels: (B, H, W), 255 = ignored.
        target_labels: wanted classes, (B, H, W), 255 = none wanted; None if untargeted.
        logits: the source's, (B, C, H, W), if the attack would ask for them again; else empty.
        seconds: time that it took.
    """

    preds: dict[str, Tensor]
    labels: Tensor
    target_labels: Tensor | None
    logits: list[Tensor]
    seconds: float


@dataclass
class AttackStep:
    """Second step for a batch: its adversarial images.

    Attributes:
        attack: what made them.
        images: (B, 3, H, W), as they are saved and scored.
        watched: the images after some steps; None without a curve.
        figures, passes, seconds, memory: as in `AttackOutput`.
    """

    attack: Attack
    images: Tensor
    watched: WatchedSteps | None
    figures: list[dict[str, Tensor]]
    passes: dict[str, float]
    seconds: float
    memory: float | None


def to_8_bits(attack: Attack, images: Tensor, adversarial: Tensor) -> Tensor:
    """The adversarial images on the 8-bit grid, as they are saved; a warning says if images came to nothing by it."""
    result = attack.quantize(images, adversarial)
    lost = (adversarial != images).flatten(1).any(1) & (result == images).flatten(1).all(1)
    if lost.any():
        rank_zero_warn(
            f"rounding to 8 bits took away the whole perturbation of {counted(int(lost.sum()), 'image')}; raise eps "
            "(in L2 it is a Euclidean length, such as 1.0), or set model.quantize=false"
        )
    return result

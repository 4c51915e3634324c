"""Adversarial images as they are saved: in 8 bits."""

from __future__ import annotations

from typing import Protocol

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor


class Rounding(Protocol):
    """What knows the budget inside which values are rounded: an attack, or a norm."""

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        """The adversarial images on the 8-bit grid."""


def rounded(budget: Rounding, images: Tensor, adversarial: Tensor) -> Tensor:
    """The adversarial images in 8 bits; a warning says if images came to nothing by it."""
    result = budget.quantize(images, adversarial)
    lost = (adversarial != images).flatten(1).any(1) & (result == images).flatten(1).all(1)
    if lost.any():
        rank_zero_warn(
            f"rounding to 8 bits took away the whole perturbation of {int(lost.sum())} images; raise eps (in L2 it is "
            "a Euclidean length, such as 1.0), or set model.quantize=false"
        )
    return result

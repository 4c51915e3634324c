"""Attacks along integrated gradients: the gradient on the way from a baseline to the image, times the way."""

from __future__ import annotations

from typing import Unpack

from lightning_attack.attacks.input_transforms.paths import IntegratedGradients
from lightning_attack.attacks.input_transforms.shifts import MovedCopies
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.objectives.losses import LabelLogit, Tsallis
from lightning_attack.attacks.presets.settings import Settings, build, momentum, usual_noise
from lightning_attack.common.pixels import Pixels

__all__ = ["mig", "mumodig", "taig"]


def taig(
    *, decay: float = 0.0, points: int = 20, noise: Pixels | None = None, **settings: Unpack[Settings]
) -> IterativeAttack:
    """TAIG-R: integrated gradients of the label's logit, from black along random paths, see `IntegratedGradients`.

    See `LabelLogit`. Source: Y. Huang, A. W.-K. Kong, ICLR 2022, arXiv 2205.13152 (there: 20 points, `noise` as wide as
    eps). The default of `noise` is eps, in L2 8/255; with 0 it is TAIG-S. Without momentum (`decay` 0).
    """
    way = IntegratedGradients("black", points, noise=usual_noise(settings) if noise is None else noise)
    return build("taig", LabelLogit(), settings, inputs=[way], gradients=momentum(decay))


def mig(*, decay: float = 1.0, points: int = 20, **settings: Unpack[Settings]) -> IterativeAttack:
    """MIG: momentum of integrated gradients of the label's probability, from black, see `IntegratedGradients`.

    Source: W. Ma et al., ICCV 2023 (there: eps 16/255, step eps/25, 25 steps, 20 points). The loss is 1 - p_y, which is
    `Tsallis` with q = 0.
    """
    way = IntegratedGradients("black", points)
    return build("mig", Tsallis(0.0, 0.0), settings, inputs=[way], gradients=momentum(decay))


def mumodig(
    *,
    decay: float = 1.0,
    copies: int = 6,
    degrees: float = 45.0,
    scale: float = 224 / 245,
    baselines: int = 1,
    points: int = 1,
    position: float = 0.65,
    regions: int = 2,
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """MUMODIG: momentum of integrated gradients of the image and of moved copies, from quantized baselines.

    See `MovedCopies` and `IntegratedGradients`. Source: Y. Ren et al., AAAI 2025, arXiv 2412.18844 (there: eps 16/255,
    step eps/10, 10 steps, 6 copies, 2 regions, position 0.65).
    """
    inputs = [
        MovedCopies(copies, degrees, scale, undo),
        IntegratedGradients("quantized", points, position, baselines, regions),
    ]
    return build("mumodig", CrossEntropy(), settings, inputs=inputs, gradients=momentum(decay))

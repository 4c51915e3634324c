"""Attacks that step along something else than the sign, so that values move by different lengths."""

from __future__ import annotations

from typing import Unpack

from lightning_attack.attacks.gradient_transforms.base import Momentum
from lightning_attack.attacks.gradient_transforms.neighbours import RandomWalk
from lightning_attack.attacks.gradient_transforms.steps import AdaptiveTanh, NonSign, Rescale, Staircase
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build, momentum

__all__ = ["ai_fgtm", "fgnm", "fgs2m", "smi_fgrm"]


def ai_fgtm(
    *,
    strength: float = 1.3,
    mu1: float = 1.5,
    mu2: float = 1.9,
    beta1: float = 0.9,
    beta2: float = 0.99,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """AI-FGTM: steps of Adam, bent by tanh in place of the sign, see `AdaptiveTanh`.

    Source: J. Zou et al., AAAI 2022, arXiv 2007.03838 (there: eps 16/255 in 10 steps); without its smaller TI kernel.
    """
    adam = AdaptiveTanh(strength, mu1, mu2, beta1, beta2)
    return build("ai_fgtm", CrossEntropy(), settings, gradients=[adam])


def fgs2m(*, decay: float = 0.0, stairs: int = 64, **settings: Unpack[Settings]) -> IterativeAttack:
    """FGS2M, staircase sign: the larger a value's gradient, the longer its step, see `Staircase`.

    Source: Q. Zhang et al., 2021, arXiv 2104.09722 (there: eps 16/255, step eps/10, 10 steps, 64 stairs); without
    momentum (`decay` 0).
    """
    return build("fgs2m", CrossEntropy(), settings, gradients=[*momentum(decay), Staircase(stairs)])


def fgnm(*, decay: float = 0.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """FGNM: steps along the gradient, not its sign, of the same length, see `NonSign`.

    Source: Y. Cheng et al., 2021, arXiv 2110.12734 (there: eps 16/255, step eps/10, 10 steps); without momentum
    (`decay` 0).
    """
    return build("fgnm", CrossEntropy(), settings, gradients=[*momentum(decay), NonSign()])


def smi_fgrm(
    *,
    decay: float = 1.0,
    samples: int = 12,
    radius: float = 1.5,
    factor: float = 2.0,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """SMI-FGRM: momentum of gradients along a random walk, and steps by the logarithm of its size.

    See `RandomWalk` and `Rescale`. Source: X. Han et al., 2023, arXiv 2307.02828 (there: eps 16/255, step eps/10, 10
    steps, 12 samples, radius 1.5 eps).
    """
    gradients = [RandomWalk(samples, radius), Momentum(decay), Rescale(factor)]
    return build("smi_fgrm", CrossEntropy(), settings, gradients=gradients)

"""Attacks on several sources, and with several runs."""

from __future__ import annotations

from typing import Unpack

from lightning_attack.attacks.gradient_transforms.base import Momentum
from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.loops.adaea import AdaEA
from lightning_attack.attacks.loops.common_weakness import CommonWeakness
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.rotation import Order, SourceRotation
from lightning_attack.attacks.loops.soup import Soup
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build, momentum
from lightning_attack.common.pixels import Pixels

__all__ = ["adaea", "aes", "cwa", "source_rotation"]


def source_rotation(
    *, decay: float = 1.0, order: Order = "cyclic", order_seed: int = 0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Source rotation: momentum on an ensemble of which each step asks one member, see `SourceRotation`.

    Source: Y. Li et al., AAAI 2020, arXiv 1812.03413, which calls it a longitudinal ensemble and has another ghost
    network in each step. The source must be an `Ensemble`.
    """
    return build(
        "source_rotation",
        CrossEntropy(),
        settings,
        gradients=momentum(decay),
        kind=SourceRotation,
        order=order,
        order_seed=order_seed,
    )


def adaea(
    *, decay: float = 1.0, beta: float = 10.0, threshold: float = -0.3, **settings: Unpack[Settings]
) -> IterativeAttack:
    """AdaEA: momentum on an ensemble whose members weigh by how their steps transfer, see `AdaEA`.

    Source: B. Chen et al., ICCV 2023, arXiv 2308.02897 (there: eps 8/255, step 2/255, 20 steps, decay 0.9, beta 10,
    threshold -0.3). The source must be an `Ensemble`.
    """
    return build(
        "adaea",
        CrossEntropy(),
        settings,
        gradients=momentum(decay),
        kind=AdaEA,
        beta=beta,
        threshold=threshold,
    )


def cwa(
    *,
    decay: float = 1.0,
    inner_size: float = 0.5,
    reverse_size: Pixels | None = None,
    inner_decay: float = 1.0,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """CWA: momentum on an ensemble towards flat maxima that its members share, see `CommonWeakness`.

    Source: H. Chen et al., ICLR 2024, arXiv 2303.09105 (there: eps 16/255, step eps/5, 10 steps, inner step 250 in L2,
    reverse step eps/15). The source must be an `Ensemble`.
    """
    return build(
        "cwa",
        CrossEntropy(),
        settings,
        gradients=[Momentum(decay)],
        kind=CommonWeakness,
        inner_size=inner_size,
        reverse_size=reverse_size,
        decay=inner_decay,
    )


def aes(
    *,
    decay: float = 1.0,
    scale: float = 0.9,
    prob: float = 0.7,
    undo: bool = True,
    runs: int = 5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """AES, a soup: the mean of several runs of MI with DI from random starts, see `Soup`.

    Source: B. Yang et al., 2024, arXiv 2402.18370, which averages results of many attacks; which attack, and how many
    runs, are ours.
    """
    inputs = [InputDiversity(scale, prob, undo)]
    defaults: Settings = {"random_start": True}
    return build("aes", CrossEntropy(), settings, defaults, inputs, momentum(decay), kind=Soup, runs=runs)

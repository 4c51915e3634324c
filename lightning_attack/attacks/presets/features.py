"""Attacks on the features of the source: MI-FGSM with an objective on the features of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.importance import BFA, FIA, NAA
from lightning_attack.attacks.presets.settings import Settings, build, momentum
from lightning_attack.common.pixels import Pixels

__all__ = ["bfa", "fia", "naa"]


def fia(
    *,
    decay: float = 1.0,
    layers: Sequence[str] = ("auto",),
    samples: int = 30,
    drop: float = 0.3,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """FIA: MI against the features that speak for the labels however pixels are dropped, see `FIA`.

    Source: Z. Wang et al., ICCV 2021, arXiv 2107.14185 (there: eps 16/255, step eps/10, 10 steps, 30 samples). The
    features are weighed once, before the first step, which costs a pass for each sample.
    """
    return build("fia", FIA(layers, samples, drop), settings, gradients=momentum(decay))


def naa(
    *,
    decay: float = 1.0,
    layers: Sequence[str] = ("auto",),
    samples: int = 30,
    gamma: float = 1.0,
    noise: Pixels = 0.1,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """NAA: MI against what neurons add to the labels' probabilities on the way from a black image, see `NAA`.

    Source: J. Zhang et al., CVPR 2022, arXiv 2204.00008 (there: eps 16/255, step eps/10, 10 steps, 30 samples). The
    features are weighed once, before the first step, which costs a pass for each sample.
    """
    return build("naa", NAA(layers, samples, gamma, noise), settings, gradients=momentum(decay))


def bfa(
    *,
    decay: float = 1.0,
    layers: Sequence[str] = ("auto",),
    samples: int = 30,
    reach: Pixels = 0.054,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """BFA: MI against the features that still speak for the labels in images moved away from them, see `BFA`.

    Source: M. Wang et al., Neurocomputing 2024 (there: eps 16/255, step eps/10, 10 steps, 30 samples). The features are
    weighed once, before the first step, which costs two passes for each sample.
    """
    return build("bfa", BFA(layers, samples, reach), settings, gradients=momentum(decay))

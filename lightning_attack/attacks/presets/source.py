"""Attacks that change how the source runs: MI-FGSM with a source transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build, momentum
from lightning_attack.attacks.source_transforms.activations import LinearBackward, SmoothBackward
from lightning_attack.attacks.source_transforms.attention import FixedAttention
from lightning_attack.attacks.source_transforms.features import (
    CleanFeatureMixup,
    DiversifiedFeatures,
    FeatureNoise,
    PerturbationDecay,
)
from lightning_attack.attacks.source_transforms.residuals import SkipGradients, SoftplusResiduals
from lightning_attack.attacks.source_transforms.tokens import TokenGradients

__all__ = [
    "bpa",
    "cfm",
    "dhf",
    "faug",
    "iaa",
    "ilpd",
    "linbp",
    "pna",
    "sgm",
    "tgr",
]


def bpa(
    *,
    decay: float = 1.0,
    strength: float = 1.0,
    start: float = 0.4,
    temperature: float | None = 10.0,
    behind_sums: bool = False,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """BPA: MI with smooth slopes of ReLU and of maximum pooling on the way back, see `SmoothBackward`.

    Activations behind the sums of residual connections keep their slopes, as in the released code, unless
    `behind_sums`. Departs from it in one point: pooling is changed everywhere, not only in the stem.

    Source: X. Wang, K. Tong, K. He, NeurIPS 2023, arXiv 2306.12685 (there: eps 8/255, 10 steps, of a ResNet-50 about
    the second half, temperature 10).
    """
    sources = [SmoothBackward(strength, start, temperature, behind_sums=behind_sums)]
    return build("bpa", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def linbp(
    *,
    decay: float = 1.0,
    strength: float = 1.0,
    start: float = 0.4,
    rescale: bool = True,
    behind_sums: bool = False,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """LinBP: MI with a backward pass without activations, see `LinearBackward`.

    Residual branches keep the length of their gradient (`rescale`), for which they are computed twice. Activations
    behind the sums of residual connections keep their slopes, as in the released code, unless `behind_sums`.

    Source: Y. Guo, Q. Li, H. Chen, NeurIPS 2020, arXiv 2012.03528 (there: without momentum, 300 steps of 1/255).
    """
    sources = [LinearBackward(strength, start, rescale=rescale, behind_sums=behind_sums)]
    return build("linbp", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def sgm(*, decay: float = 1.0, gamma: float = 0.2, start: float = 0.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """SGM: MI whose gradient takes the skip connections, see `SkipGradients`.

    Source: D. Wu et al., ICLR 2020, arXiv 2002.05990 (there: eps 16/255, 10 steps of 2/255, gamma 0.2 for ResNets, 0.5
    for DenseNets).
    """
    sources = [SkipGradients(gamma, start)]
    return build("sgm", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def iaa(
    *,
    decay: float = 1.0,
    beta: float | None = 20.0,
    shares: Sequence[float] = (0.98, 0.87, 0.73, 0.19),
    start: float = 0.0,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """IAA: MI on a smooth source with weaker late residual branches, see `SoftplusResiduals`.

    Source: Y. Zhu, J. Sun, Z. Li, ICLR 2022 (there: eps 16/255, 10 steps of 2/255, without momentum, from a random
    start; the shares were searched for ResNet-50).
    """
    sources = [SoftplusResiduals(beta, shares, start)]
    return build("iaa", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def faug(*, decay: float = 1.0, sigma: float = 0.3, at: float = 0.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """FAUG: MI with noise on early features, see `FeatureNoise`.

    Source: D. Wang et al., 2024, arXiv 2407.06714 (in a public port: eps 16/255, 10 steps of 2/255, sigma 0.3).
    """
    sources = [FeatureNoise(sigma, at)]
    return build("faug", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def dhf(
    *,
    decay: float = 1.0,
    mix: float = 0.2,
    level: float = 0.1,
    start: float = 0.2,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """DHF: MI on late features with a little of the clean ones and some values levelled, see `DiversifiedFeatures`.

    Source: Z. Wang et al., BMVC 2023, arXiv 2304.10136 (there: eps 16/255, step eps/10, 10 steps).
    """
    sources = [DiversifiedFeatures(mix, level, start)]
    return build("dhf", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def ilpd(
    *,
    decay: float = 1.0,
    gamma: float = 0.1,
    sigma: float = 0.05,
    at: float = 0.3,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """ILPD: MI with a smaller perturbation inside the source, see `PerturbationDecay`.

    Source: Q. Li et al., NeurIPS 2023, arXiv 2304.13410 (in a public port: eps 16/255, 100 steps of 1/255).
    """
    sources = [PerturbationDecay(gamma, sigma, at)]
    return build("ilpd", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def cfm(
    *,
    decay: float = 1.0,
    prob: float = 0.1,
    mix: float = 0.75,
    start: float = 0.0,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """CFM: MI on features with channels of the clean image among them, see `CleanFeatureMixup`.

    Source: J. Byun et al., CVPR 2023, arXiv 2305.14846 (there: targeted, with DI and TI, a loss of
    logits, 300 steps of 2/255).
    """
    sources = [CleanFeatureMixup(prob, mix, start=start)]
    return build("cfm", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def pna(
    *, decay: float = 1.0, strength: float = 1.0, start: float = 0.0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """PNA: MI whose gradient does not pass through the weights of attention, see `FixedAttention`.

    Source: Z. Wei et al., AAAI 2022, arXiv 2109.04176 (there: with PatchOut, eps 16/255, step eps/10, 10 steps). The
    source must have attention with a softmax, as SegFormer and DPT have.
    """
    sources = [FixedAttention(strength, start)]
    return build("pna", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)


def tgr(
    *,
    decay: float = 1.0,
    attention: float = 0.25,
    qkv: float = 0.75,
    mlp: float = 0.5,
    start: float = 0.0,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """TGR: MI without the extreme gradients of tokens in transformer blocks, see `TokenGradients`.

    Source: J. Zhang et al., CVPR 2023, arXiv 2303.15754 (there: eps 16/255, step eps/10, 10 steps). The source must
    have attention with a softmax, as SegFormer and DPT have.
    """
    sources = [TokenGradients(attention, qkv, mlp, start)]
    return build("tgr", CrossEntropy(), settings, gradients=momentum(decay), sources=sources)

"""Combinations of views, gradients and losses, among them the strongest transfer of this project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from lightning_attack.attacks.gradient_transforms.base import Nesterov, TranslationInvariance
from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.input_transforms.colour import RandomColour
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.objectives.masked import BalancedCrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build, long_steps, momentum, source_changes

__all__ = [
    "soft_transfer",
    "tass",
    "transfer_best",
]


def tass(
    *,
    decay: float = 1.0,
    scale: float = 0.9,
    prob: float = 0.7,
    kernel_size: int = 5,
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """TASS: NI, DI and TI together, see `Nesterov`, `InputDiversity` and `TranslationInvariance`.

    Source: "Transferable Attack for Semantic Segmentation", 2023, arXiv 2307.16572 (there: eps 8/255, step eps/10, 10
    steps, DI with probability 0.7, a 5 x 5 kernel). Departs from the released code, which leaves the prediction where
    DI moved it (`undo=False` does too) and smooths the image instead of the gradient.
    """
    inputs = [InputDiversity(scale, prob, undo)]
    gradients = [TranslationInvariance(kernel_size), Nesterov(decay)]
    return build("tass", CrossEntropy(), settings, inputs=inputs, gradients=gradients, looks_ahead=True)


def soft_transfer(
    *,
    temperature: float = 3.0,
    decay: float = 1.0,
    scale: float = 2 / 3,
    prob: float = 1.0,
    kernel_size: int = 5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """Soft transfer: MI, wide DI, TI and the cross-entropy of softened logits, without pixel weights.

    See `CrossEntropy`, `InputDiversity`, `TranslationInvariance`, `Momentum`. Softened logits keep the gradient of
    pixels alive that are fooled already.

    Source: ours, a combination of MI (Y. Dong et al., CVPR 2018, arXiv 1710.06081), DI (C. Xie et al., CVPR 2019,
    arXiv 1803.06978) and TI (Y. Dong et al., CVPR 2019, arXiv 1904.02884), from measurements on real networks.
    """
    inputs = [InputDiversity(scale, prob)]
    gradients = [TranslationInvariance(kernel_size), *momentum(decay)]
    defaults: Settings = {"random_start": True}
    return build("soft_transfer", CrossEntropy(temperature), settings, defaults, inputs, gradients)


def transfer_best(
    *,
    temperature: float = 3.0,
    power: float = 0.5,
    pull: float = 0.5,
    decay: float = 1.0,
    grey: float = 0.5,
    contrast: float = 0.3,
    brightness: float = 0.1,
    degrees: float = 10.0,
    translate: float = 0.1,
    scale: float | Sequence[float] = (0.75, 1.6),
    slant: float = 0.2,
    kernel_size: int = 5,
    skip_gamma: float | None = None,
    feature_mix: float = 0.4,
    feature_prob: float | None = None,
    smooth_slopes: float | None = None,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """The strongest transfer that we know: softened and balanced loss, with MI and TI, on slanted and recoloured views.

    See `BalancedCrossEntropy`, with a `pull` to the largest other class of the image, `RandomColour`, `RandomAffine`,
    `TranslationInvariance`, `Momentum`, and source transforms: `SkipGradients` (SGM) with gamma = `skip_gamma` (None:
    0.5, and 0.7 where an activation follows the sum, as in ResNets); `CleanFeatureMixup` (CFM) with mix = `feature_mix`
    and prob = `feature_prob` (None: 0.1, and 0.25 from 100 steps on), which costs a forward pass of the clean images
    for each step; `SmoothBackward` (BPA) of maximum pooling and of all activations but those behind the sums of
    residual connections, with strength = `smooth_slopes` (None: 0.5, and 0.25 from 100 steps on). They run the source
    operator by operator; skip_gamma = 1, feature_mix = 0 and smooth_slopes = 0 leave them out. A source without
    residual connections, without ReLUs and the like, or without a graph is attacked without what it does not support,
    with a warning. 10 steps, whose lengths add up to 6.4 eps (`long_steps`).

    Source: ours, a combination of MI (Y. Dong et al., CVPR 2018, arXiv 1710.06081), TI (Y. Dong et al., CVPR 2019,
    arXiv 1904.02884), SGM (D. Wu et al., ICLR 2020, arXiv 2002.05990), BPA (X. Wang et al., NeurIPS 2023, arXiv
    2306.12685) and CFM (J. Byun et al., CVPR 2023, arXiv 2305.14846), found by a search on real networks
    (tests/benchmarks/search_transfer.py).
    """
    inputs = [RandomColour(grey, contrast, brightness), RandomAffine(degrees, translate, scale, slant=slant)]
    gradients = [TranslationInvariance(kernel_size), *momentum(decay)]
    # The more steps there are, the more each of them may be hindered, as their directions add up; but the closer their
    # slopes must be to the true ones.
    many = settings.get("steps", 10) >= 100
    if feature_prob is None:
        feature_prob = 0.25 if many else 0.1
    if smooth_slopes is None:
        smooth_slopes = 0.25 if many else 0.5
    objective = BalancedCrossEntropy(power, temperature, pull)
    sources = source_changes(skip_gamma, feature_prob, feature_mix, smooth_slopes)
    return build("transfer_best", objective, settings, {"steps": 10}, inputs, gradients, sources, linf_step=long_steps)

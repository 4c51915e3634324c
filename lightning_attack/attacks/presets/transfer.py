"""Attacks that differ in where and how the gradient of the cross-entropy is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from lightning_attack.attacks.gradient_transforms.base import Momentum, Nesterov, PreGradient, TranslationInvariance
from lightning_attack.attacks.gradient_transforms.sampling import (
    EnhancedSampling,
    ExpectedFlatness,
    PenalizedGradientNorm,
    VarianceTuning,
)
from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.input_transforms.colour import RandomColour
from lightning_attack.attacks.input_transforms.copies import (
    Admix,
    MixMask,
    ScaleCopies,
    SpectrumSimulation,
    StraightThrough,
)
from lightning_attack.attacks.input_transforms.geometry import DynamicScaling
from lightning_attack.attacks.input_transforms.regions import BlockShuffle, LocalRegions
from lightning_attack.attacks.input_transforms.stretch import BlockStretch
from lightning_attack.attacks.input_transforms.structure import StructureInvariance
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.objectives.masked import BalancedCrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build, make_ball, momentum
from lightning_attack.attacks.source_transforms.residuals import SkipGradients
from lightning_attack.common.pixels import Pixels

__all__ = [
    "admix", "block_shuffle", "block_stretch", "bsr", "di_fgsm", "dynamic_scaling", "emi_fgsm", "local_regions", "mef",
    "mi_fgsm", "ni_fgsm", "pgn", "pre_gradient_fgsm", "si_ni_fgsm", "sia", "soft_transfer", "ssa", "tass", "ti_fgsm",
    "transfer_best", "us_mm", "vmi_fgsm", "vni_fgsm",
]  # fmt: skip


def mi_fgsm(*, decay: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """MI-FGSM: momentum, see `Momentum`.

    Source: Y. Dong et al., CVPR 2018, arXiv 1710.06081 (there: eps 16/255, step eps/10, 10 steps, decay 1).
    """
    return build("mi_fgsm", CrossEntropy(), settings, gradients=[Momentum(decay)])


def ni_fgsm(*, decay: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """NI-FGSM: Nesterov momentum, see `Nesterov`.

    Source: J. Lin et al., ICLR 2020, arXiv 1908.06281 (there: eps 16/255, step eps/10, 10 steps, decay 1).
    """
    return build("ni_fgsm", CrossEntropy(), settings, gradients=[Nesterov(decay)], looks_ahead=True)


def si_ni_fgsm(*, decay: float = 1.0, copies: int = 5, **settings: Unpack[Settings]) -> IterativeAttack:
    """SI-NI-FGSM: Nesterov momentum over darker copies of the image, see `ScaleCopies` and `Nesterov`.

    Source: J. Lin et al., ICLR 2020, arXiv 1908.06281 (there: eps 16/255, step eps/10, 10 steps, decay 1, 5 copies).
    """
    inputs = [ScaleCopies(copies)]
    return build("si_ni_fgsm", CrossEntropy(), settings, inputs=inputs, gradients=[Nesterov(decay)], looks_ahead=True)


def di_fgsm(
    *, decay: float = 0.0, scale: float = 0.9, prob: float = 0.5, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """DI-FGSM: input diversity, see `InputDiversity`; without momentum, as in the paper's DI2-FGSM (`decay` 0).

    Source: C. Xie et al., CVPR 2019, arXiv 1803.06978 (there: eps 15/255, step 1/255, 19 steps, prob 0.5; sizes 299 to
    330, which is a scale of about 0.9).
    """
    diversity = InputDiversity(scale, prob, undo)
    return build("di_fgsm", CrossEntropy(), settings, inputs=[diversity], gradients=momentum(decay))


def ti_fgsm(
    *, decay: float = 0.0, kernel_size: int = 15, nsig: float = 3.0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """TI-FGSM: gradients smoothed by a Gaussian, see `TranslationInvariance`; without momentum (`decay` 0).

    Source: Y. Dong et al., CVPR 2019, arXiv 1904.02884 (there: eps 16/255, 15 x 15 kernel).
    """
    smooth = TranslationInvariance(kernel_size, nsig)
    return build("ti_fgsm", CrossEntropy(), settings, gradients=[smooth, *momentum(decay)])


def vmi_fgsm(
    *, decay: float = 1.0, samples: int = 20, radius: float = 1.5, **settings: Unpack[Settings]
) -> IterativeAttack:
    """VMI-FGSM: momentum of gradients tuned by their variance around the last point, see `VarianceTuning`.

    Source: X. Wang, K. He, CVPR 2021, arXiv 2103.15571 (there: eps 16/255, step eps/10, 10 steps, 20 samples).
    """
    gradients = [VarianceTuning(samples, radius), Momentum(decay)]
    return build("vmi_fgsm", CrossEntropy(), settings, gradients=gradients)


def vni_fgsm(
    *, decay: float = 1.0, samples: int = 20, radius: float = 1.5, **settings: Unpack[Settings]
) -> IterativeAttack:
    """VNI-FGSM: as VMI-FGSM, with Nesterov momentum, see `VarianceTuning` and `Nesterov`.

    Source: X. Wang, K. He, CVPR 2021, arXiv 2103.15571 (there: eps 16/255, step eps/10, 10 steps, 20 samples).
    """
    gradients = [VarianceTuning(samples, radius), Nesterov(decay)]
    return build("vni_fgsm", CrossEntropy(), settings, gradients=gradients, looks_ahead=True)


def emi_fgsm(
    *, decay: float = 1.0, samples: int = 11, radius: float = 7.0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """EMI-FGSM: momentum of the mean gradient along the last direction, see `EnhancedSampling`.

    Source: X. Wang et al., BMVC 2021, arXiv 2103.10609 (there: eps 16/255, step eps/10, 10 steps, 11 samples).
    """
    gradients = [EnhancedSampling(samples, radius), Momentum(decay)]
    return build("emi_fgsm", CrossEntropy(), settings, gradients=gradients, looks_ahead=True)


def pre_gradient_fgsm(*, decay: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """The PI-FGSM of 2021: Nesterov that looks ahead along the last gradient, see `PreGradient`.

    Source: X. Wang et al., BMVC 2021, arXiv 2103.10609. Another attack than the patch-wise `pi_fgsm` of 2020.
    """
    return build("pre_gradient_fgsm", CrossEntropy(), settings, gradients=[PreGradient(decay)], looks_ahead=True)


def pgn(
    *,
    decay: float = 1.0,
    samples: int = 20,
    radius: float = 3.0,
    balance: float = 0.5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """PGN: momentum towards flat maxima, with two gradients at each random neighbour, see `PenalizedGradientNorm`.

    Source: Z. Ge et al., NeurIPS 2023, arXiv 2306.05225 (there: eps 16/255, step eps/10, 10 steps, 20 samples).
    """
    gradients = [PenalizedGradientNorm(samples, radius, balance), Momentum(decay)]
    return build("pgn", CrossEntropy(), settings, gradients=gradients)


def admix(
    *,
    decay: float = 1.0,
    copies: int = 3,
    strength: float = 0.2,
    scales: int = 5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """Admix: momentum over copies with a little of other images of the batch, each at several brightnesses.

    See `Admix` and `ScaleCopies`. Source: X. Wang et al., ICCV 2021, arXiv 2102.00436 (there: eps 16/255, step eps/10,
    10 steps, 3 copies times 5 scales, strength 0.2). The batch must hold two images or more.
    """
    inputs = [Admix(copies, strength), ScaleCopies(scales)]
    return build("admix", CrossEntropy(), settings, inputs=inputs, gradients=momentum(decay))


def ssa(*, decay: float = 1.0, copies: int = 20, rho: float = 0.5, **settings: Unpack[Settings]) -> IterativeAttack:
    """SSA: momentum over copies whose spectrum was shaken, see `SpectrumSimulation`; its noise has the size of eps.

    Source: Y. Long et al., ECCV 2022, arXiv 2207.05382 (there: eps 16/255, step eps/10, 10 steps, 20 copies, rho 0.5).
    As in the released code the gradient at a copy counts as that at the image (`StraightThrough`).
    """
    ball = make_ball(settings)
    # In L2 eps is the length of a whole image's change; the noise keeps the field's usual size.
    sigma = ball.eps if ball.name == "linf" else 8 / 255
    shaken = StraightThrough(SpectrumSimulation(copies, rho, sigma))
    return build("ssa", CrossEntropy(), settings, inputs=[shaken], gradients=momentum(decay))


def dynamic_scaling(
    *, decay: float = 0.0, low: float = 0.5, high: float = 1.5, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Dynamic scaling: PGD on the image at changing sizes, see `DynamicScaling`.

    Source: J. Gu et al., "Adversarial Examples on Segmentation Models Can be Easy to Transfer", 2021, arXiv 2111.11368,
    of which only the abstract was available: the range of sizes is ours. Random start; without momentum (`decay` 0).
    """
    scaling = DynamicScaling(low, high, undo)
    defaults: Settings = {"random_start": True}
    return build("dynamic_scaling", CrossEntropy(), settings, defaults, [scaling], momentum(decay))


def block_shuffle(
    *, decay: float = 1.0, blocks: int = 3, copies: int = 1, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Block shuffle: momentum over copies cut into blocks that change places, see `BlockShuffle`.

    Source: K. Wang et al., "Boosting Adversarial Transferability by Block Shuffle and Rotation", CVPR 2024,
    arXiv 2308.10299; without its rotation. There 20 copies; here 1, since they are drawn anew at every step.
    """
    shuffle = BlockShuffle(blocks, copies, undo)
    return build("block_shuffle", CrossEntropy(), settings, inputs=[shuffle], gradients=momentum(decay))


def bsr(
    *,
    decay: float = 1.0,
    blocks: int = 3,
    copies: int = 1,
    degrees: float = 24.0,
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """BSR: momentum over copies cut into blocks that are turned and change places, see `BlockShuffle`.

    Source: K. Wang et al., CVPR 2024, arXiv 2308.10299 (there: eps 16/255, step eps/10, 10 steps; 3 blocks, 24 degrees
    and 20 copies in a common port). Here 1 copy, drawn anew at every step.
    """
    shuffle = BlockShuffle(blocks, copies, undo, degrees)
    return build("bsr", CrossEntropy(), settings, inputs=[shuffle], gradients=momentum(decay))


def block_stretch(
    *, decay: float = 1.0, blocks: int = 3, strength: float = 0.6, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Block stretch: momentum over copies in which some blocks grow at the cost of others, see `BlockStretch`.

    Source: after the abstract of "Enhancing Adversarial Transferability through Block Stretch and Shrink", 2025, arXiv
    2511.17688, whose details are not known to us.
    """
    stretch = BlockStretch(blocks, strength, undo)
    return build("block_stretch", CrossEntropy(), settings, inputs=[stretch], gradients=momentum(decay))


def sia(
    *,
    decay: float = 1.0,
    blocks: int = 3,
    copies: int = 1,
    noise: Pixels = "8/255",
    undo: bool = True,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """SIA: momentum over copies whose blocks are each changed in a way of its own, see `StructureInvariance`.

    Source: X. Wang et al., ICCV 2023, arXiv 2309.14700 (there: eps 16/255, step eps/10, 10 steps, 3 blocks, 20 copies).
    Here 1 copy, drawn anew at every step.
    """
    structure = StructureInvariance(blocks, copies, noise, undo)
    return build("sia", CrossEntropy(), settings, inputs=[structure], gradients=momentum(decay))


def us_mm(
    *,
    decay: float = 1.0,
    scales: int = 5,
    masks: int = 3,
    low: float = 0.1,
    high: float = 0.75,
    mix: float = 0.5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """US-MM: momentum over darker copies that are masked by other images, see `MixMask`.

    Source: "Boost Adversarial Transferability by Uniform Scale and Mix Mask Method", 2023, arXiv 2311.12051 (there: eps
    16/255, step eps/10, 10 steps, 5 scales, 3 masks). Without partners the batch must hold two images or more.
    """
    masked = MixMask(scales, masks, low, high, mix)
    return build("us_mm", CrossEntropy(), settings, inputs=[masked], gradients=momentum(decay))


def mef(
    *,
    decay: float = 0.5,
    samples: int = 20,
    radius: float = 2.0,
    push: float = 0.15,
    inner_decay: float = 0.9,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """MEF: momentum towards maxima that are flat around, with one gradient at each neighbour, see `ExpectedFlatness`.

    Source: 2024, arXiv 2405.16181 (there: eps 16/255, step 1.6/255, 20 steps, 20 samples, outer decay 0.5).
    """
    gradients = [ExpectedFlatness(samples, radius, push, inner_decay), *momentum(decay)]
    return build("mef", CrossEntropy(), settings, gradients=gradients)


def local_regions(
    *, decay: float = 1.0, grid: int = 4, keep: float = 0.5, copies: int = 1, **settings: Unpack[Settings]
) -> IterativeAttack:
    """Local regions: momentum over copies of which only some cells are kept, see `LocalRegions`.

    Inspired by the abstract of SegTrans, 2025, arXiv 2510.08922; it is not SegTrans, whose details are not known to us.
    """
    regions = LocalRegions(grid, keep, copies)
    return build("local_regions", CrossEntropy(), settings, inputs=[regions], gradients=momentum(decay))


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

    See `CrossEntropy`, `InputDiversity`, `TranslationInvariance`, `Momentum`. A combination of this project, from
    measurements on real networks: softened logits keep the gradient of pixels alive that are fooled already.
    """
    inputs = [InputDiversity(scale, prob)]
    gradients = [TranslationInvariance(kernel_size), *momentum(decay)]
    defaults: Settings = {"random_start": True}
    return build("soft_transfer", CrossEntropy(temperature), settings, defaults, inputs, gradients)


def transfer_best(
    *,
    temperature: float = 3.0,
    power: float = 0.5,
    decay: float = 1.0,
    grey: float = 0.5,
    contrast: float = 0.3,
    brightness: float = 0.1,
    degrees: float = 10.0,
    translate: float = 0.1,
    scale: float | Sequence[float] = (0.5, 1.2),
    slant: float = 0.2,
    kernel_size: int = 5,
    skip_gamma: float = 0.5,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """The strongest transfer that we know: softened and balanced loss, with MI and TI, on slanted and recoloured views.

    See `BalancedCrossEntropy`, `RandomColour`, `RandomAffine`, `TranslationInvariance`, `Momentum`, and `SkipGradients`
    (SGM) with `skip_gamma`, for sources with residual connections; others are attacked without it, with a warning. SGM
    runs the source operator by operator; `skip_gamma=1` leaves it out. A combination of this project, found by a search
    on real networks (tests/benchmarks/search_transfer.py): 10 steps of 0.02.
    """
    inputs = [RandomColour(grey, contrast, brightness), RandomAffine(degrees, translate, scale, slant=slant)]
    gradients = [TranslationInvariance(kernel_size), *momentum(decay)]
    defaults: Settings = {"random_start": True, "steps": 10}
    objective = BalancedCrossEntropy(power, temperature)
    sources = [SkipGradients(skip_gamma, required=False)]
    return build("transfer_best", objective, settings, defaults, inputs, gradients, sources, linf_step=0.02)

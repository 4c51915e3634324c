"""How a step's gradient is made: attacks with momentum, smoothed gradients and gradients at several points."""

from __future__ import annotations

from typing import Unpack

from lightning_attack.attacks.gradient_transforms.base import Momentum, Nesterov, PreGradient, TranslationInvariance
from lightning_attack.attacks.gradient_transforms.frequency import FrequencyRelevance
from lightning_attack.attacks.gradient_transforms.neighbours import (
    DirectionTuning,
    EnhancedEuler,
    GradientRelevance,
    ReversePerturbation,
)
from lightning_attack.attacks.gradient_transforms.sampling import (
    EnhancedSampling,
    ExpectedFlatness,
    PenalizedGradientNorm,
    VarianceTuning,
)
from lightning_attack.attacks.gradient_transforms.steps import DecayIndicator
from lightning_attack.attacks.loops.global_momentum import GlobalMomentum
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.attacks.presets.settings import Settings, build, momentum

__all__ = [
    "dta",
    "emi_fgsm",
    "fgsra",
    "gi_fgsm",
    "gra",
    "ie_fgsm",
    "mef",
    "mi_fgsm",
    "ni_fgsm",
    "pgn",
    "pre_gradient_fgsm",
    "rap",
    "ti_fgsm",
    "vmi_fgsm",
    "vni_fgsm",
]


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


def gra(
    *,
    decay: float = 1.0,
    samples: int = 20,
    radius: float = 3.5,
    eta: float = 0.94,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """GRA: momentum of gradients mixed with those of neighbours, and shorter steps where signs change.

    See `GradientRelevance`, `Momentum` and `DecayIndicator`. Source: H. Zhu et al., ICCV 2023 (there: eps 16/255, step
    eps/10, 10 steps, 20 samples, radius 3.5 eps, eta 0.94).
    """
    gradients = [GradientRelevance(samples, radius), Momentum(decay), DecayIndicator(eta)]
    return build("gra", CrossEntropy(), settings, gradients=gradients)


def fgsra(
    *,
    decay: float = 1.0,
    samples: int = 20,
    radius: float = 2.0,
    rho: float = 0.7,
    eta: float = 0.94,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """FGSRA: momentum of gradients mixed with those of neighbours with shaken frequencies, and shorter steps.

    See `FrequencyRelevance`, `Momentum` and `DecayIndicator`. Source: X. Wang et al., CIKM 2024 (in a common port: eps
    16/255, step eps/10, 10 steps, 20 samples, radius 2 eps, rho 0.7). The port shortens a step where the direction
    differs from the current gradient; here, as in GRA, where it differs from the direction before.
    """
    gradients = [FrequencyRelevance(samples, radius, rho), Momentum(decay), DecayIndicator(eta)]
    return build("fgsra", CrossEntropy(), settings, gradients=gradients)


def dta(
    *, decay: float = 1.0, inner_steps: int = 10, inner_decay: float = 0.0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """DTA: momentum of the mean gradient along small steps ahead, see `DirectionTuning`.

    Source: X. Yang et al., 2023, arXiv 2303.15109 (there: eps 16/255, step eps/10, 10 steps, 10 inner steps).
    """
    tuning = DirectionTuning(inner_steps, decay, inner_decay)
    return build("dta", CrossEntropy(), settings, gradients=[tuning], looks_ahead=True)


def gi_fgsm(
    *, decay: float = 1.0, pre_steps: int = 5, factor: float = 10.0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """GI-FGSM: MI with a momentum that large steps from the clean image have filled, see `GlobalMomentum`.

    Source: J. Wang et al., 2022, arXiv 2211.11236 (there: eps 16/255, step eps/10, 10 steps, 5 pre-steps, factor 10).
    """
    return build(
        "gi_fgsm",
        CrossEntropy(),
        settings,
        gradients=[Momentum(decay)],
        kind=GlobalMomentum,
        pre_steps=pre_steps,
        factor=factor,
    )


def ie_fgsm(*, decay: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """IE-FGSM: momentum of the mean gradient at the point and a step ahead, see `EnhancedEuler`.

    Source: A. Peng et al., ICASSP 2023 (in a common port: eps 16/255, step eps/10, 10 steps, decay 1).
    """
    return build("ie_fgsm", CrossEntropy(), settings, gradients=[EnhancedEuler(decay)])


def rap(
    *,
    decay: float = 1.0,
    inner_steps: int = 8,
    radius: float = 1.0,
    inner_size: float = 0.125,
    late_start: float = 0.25,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """RAP: momentum of gradients where a perturbation against the attack is at its worst, see `ReversePerturbation`.

    Source: Z. Qin et al., NeurIPS 2022, arXiv 2210.05968 (there: eps 16/255, 400 steps of 2/255, after the first 100
    with 8 inner steps of 2/255).
    """
    gradients = [ReversePerturbation(inner_steps, radius, inner_size, late_start), *momentum(decay)]
    return build("rap", CrossEntropy(), settings, gradients=gradients)

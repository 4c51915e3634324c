"""TranSegPGD, alone and with the transfer techniques."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Unpack, cast

from lightning_attack.attacks.gradient_transforms.base import GradientTransform, Nesterov, TranslationInvariance
from lightning_attack.attacks.gradient_transforms.sampling import VarianceTuning
from lightning_attack.attacks.input_transforms.affine import RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity, InputTransform
from lightning_attack.attacks.input_transforms.colour import RandomColour
from lightning_attack.attacks.input_transforms.copies import ScaleCopies
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.objectives.transegpgd import (
    FoolAllPixels,
    KLDirection,
    Staged,
    Switch,
    TransferablePixels,
)
from lightning_attack.attacks.presets.settings import Settings, build, long_steps, momentum, source_changes
from lightning_attack.attacks.source_transforms.base import SourceTransform

__all__ = [
    "transegpgd", "transegpgd_best", "transegpgd_di", "transegpgd_dynamic", "transegpgd_mi", "transegpgd_mi_di_ti",
    "transegpgd_ni", "transegpgd_si", "transegpgd_strong", "transegpgd_ti", "transegpgd_vmi",
]  # fmt: skip


def transegpgd(
    *,
    gamma: float = 0.1,
    beta: float = 0.1,
    kl: KLDirection = "adversarial||clean",
    threshold: float | str = "mean",
    switch: Switch | None = None,
    temperature: float = 1.0,
    **settings: Unpack[Settings],
) -> IterativeAttack:
    """TranSegPGD: first fool all pixels, then weigh up the pixels that transfer.

    Source: X. Jia et al., 2023, arXiv 2312.02207. Its full text, its values and its code were not available to us: the
    formulas follow the abstract and what published re-implementations agree on, the defaults are argued in
    `FoolAllPixels`, `TransferablePixels` and `Switch`.

    Args:
        gamma: weight of misclassified pixels in stage one (1 - gamma for still correct ones), see `FoolAllPixels`.
            0.1 is the abstract's reading, 0.7 another published one (configs/attacks/transegpgd_misclassified.yaml).
        beta: weight of low-KL pixels in stage two (1 - beta for high-KL ones), see `TransferablePixels`.
        kl: direction of the divergence, see `TransferablePixels`.
        threshold: what K is compared with, see `TransferablePixels`.
        switch: when an image goes to stage two, see `Switch`; the default is half of the steps, or all pixels fooled.
        temperature: of the cross-entropy in both stages, see `CrossEntropy`; 1 in the paper.

    gamma = beta = 0.5 is PGD, bit for bit.

    Example:
        >>> transegpgd(eps="8/255", steps=20).objective.switches[0].at
        0.5
    """
    objective = _two_stages(gamma, beta, kl, threshold, switch, temperature)
    return build("transegpgd", objective, settings, {"random_start": True})


def _two_stages(
    gamma: float = 0.1,
    beta: float = 0.1,
    kl: KLDirection = "adversarial||clean",
    threshold: float | str = "mean",
    switch: Switch | None = None,
    temperature: float = 1.0,
    power: float = 0.0,
    pull: float = 0.0,
) -> Staged:
    """The objective of TranSegPGD."""
    first = FoolAllPixels(gamma, temperature, power, pull)
    second = TransferablePixels(beta, kl, threshold, temperature, power, pull)
    return Staged([first, second], [switch or Switch()])


class TranSegPGDSettings(Settings, total=False):
    """Keywords of the presets that add transforms to `transegpgd`; see there."""

    gamma: float
    beta: float
    kl: KLDirection
    threshold: float | str
    switch: Switch | None
    temperature: float


def _with(
    preset: str,
    settings: TranSegPGDSettings,
    inputs: Sequence[InputTransform] = (),
    gradients: Sequence[GradientTransform] = (),
    sources: Sequence[SourceTransform] = (),
    looks_ahead: bool = False,
    defaults: Settings | None = None,
    power: float = 0.0,
    pull: float = 0.0,
    linf_step: float | Callable[[float, int], float] = 0.01,
) -> IterativeAttack:
    """TranSegPGD with further transforms, after those that the caller gives."""
    rest = dict(settings)
    stages = {key: rest.pop(key) for key in inspect.signature(_two_stages).parameters if key in rest}
    objective = _two_stages(**stages, power=power, pull=pull)  # type: ignore[arg-type]
    known: Settings = {"random_start": True, **(defaults or {})}
    steps: dict[str, Any] = {"looks_ahead": looks_ahead, "linf_step": linf_step}
    return build(preset, objective, cast(Settings, rest), known, inputs, gradients, sources, **steps)


def transegpgd_dynamic(**settings: Unpack[TranSegPGDSettings]) -> IterativeAttack:
    """TranSegPGD with steps of random length; the other arguments are those of `transegpgd`.

    Source: one summary of arXiv 2312.02207 names a dynamic step size as a contribution of the paper, without a formula;
    see `StepSchedule` for the readings, and `FoolAllPixels` and `TransferablePixels` for the two stages.

        x_{t+1} = clip(x_t + u_t step_size sign(g_t)),   u_t ~ U(0, 2) for each image and step
    """
    return _with("transegpgd_dynamic", settings, defaults={"step_schedule": "dynamic"})


def transegpgd_mi(*, decay: float = 1.0, **settings: Unpack[TranSegPGDSettings]) -> IterativeAttack:
    """TranSegPGD with MI (`Momentum`); the other arguments are those of `transegpgd`.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207) and MI (Y. Dong et al., CVPR
    2018, arXiv 1710.06081).
    """
    return _with("transegpgd_mi", settings, gradients=momentum(decay))


def transegpgd_ni(*, decay: float = 1.0, **settings: Unpack[TranSegPGDSettings]) -> IterativeAttack:
    """TranSegPGD with NI (`Nesterov`); the other arguments are those of `transegpgd`.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207) and NI (J. Lin et al., ICLR
    2020, arXiv 1908.06281).
    """
    return _with("transegpgd_ni", settings, gradients=[Nesterov(decay)], looks_ahead=True)


def transegpgd_di(
    *, decay: float = 0.0, scale: float = 0.9, prob: float = 0.7, **settings: Unpack[TranSegPGDSettings]
) -> IterativeAttack:
    """TranSegPGD with DI (`InputDiversity`), without momentum; the other arguments are those of `transegpgd`.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207) and DI (C. Xie et al., CVPR
    2019, arXiv 1803.06978).
    """
    return _with("transegpgd_di", settings, [InputDiversity(scale, prob)], momentum(decay))


def transegpgd_ti(
    *, decay: float = 0.0, kernel_size: int = 5, **settings: Unpack[TranSegPGDSettings]
) -> IterativeAttack:
    """TranSegPGD with TI (`TranslationInvariance`), without momentum; the others are those of `transegpgd`.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207) and TI (Y. Dong et al., CVPR
    2019, arXiv 1904.02884).
    """
    return _with("transegpgd_ti", settings, gradients=[TranslationInvariance(kernel_size), *momentum(decay)])


def transegpgd_si(*, decay: float = 1.0, copies: int = 5, **settings: Unpack[TranSegPGDSettings]) -> IterativeAttack:
    """TranSegPGD with SI (`ScaleCopies`) and MI (`Momentum`); the other arguments are those of `transegpgd`.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207), SI (J. Lin et al., ICLR 2020,
    arXiv 1908.06281) and MI (Y. Dong et al., CVPR 2018, arXiv 1710.06081).
    """
    return _with("transegpgd_si", settings, [ScaleCopies(copies)], momentum(decay))


def transegpgd_vmi(
    *,
    decay: float = 1.0,
    samples: int = 20,
    radius: float = 1.5,
    **settings: Unpack[TranSegPGDSettings],
) -> IterativeAttack:
    """TranSegPGD with VMI (`VarianceTuning`, `Momentum`); the other arguments are those of `transegpgd`.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207), VT (X. Wang, K. He, CVPR
    2021, arXiv 2103.15571) and MI (Y. Dong et al., CVPR 2018, arXiv 1710.06081).
    """
    return _with("transegpgd_vmi", settings, gradients=[VarianceTuning(samples, radius), *momentum(decay)])


def transegpgd_mi_di_ti(
    *,
    decay: float = 1.0,
    scale: float = 0.9,
    prob: float = 0.7,
    kernel_size: int = 5,
    **settings: Unpack[TranSegPGDSettings],
) -> IterativeAttack:
    """TranSegPGD with MI, DI and TI (`Momentum`, `InputDiversity`, `TranslationInvariance`).

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207), MI (Y. Dong et al., CVPR
    2018, arXiv 1710.06081), DI (C. Xie et al., CVPR 2019, arXiv 1803.06978) and TI (Y. Dong et al., CVPR 2019,
    arXiv 1904.02884).
    DI has probability 0.7 and TI a 5 x 5 kernel, as in "Transferable Attack for Semantic Segmentation", 2023,
    arXiv 2307.16572; the papers of DI and TI, on classification, have 0.5 and 15 x 15. Other arguments are those of
    `transegpgd`.
    """
    gradients = [TranslationInvariance(kernel_size), *momentum(decay)]
    return _with("transegpgd_mi_di_ti", settings, [InputDiversity(scale, prob)], gradients)


def transegpgd_strong(
    *,
    decay: float = 1.0,
    scale: float = 2 / 3,
    prob: float = 1.0,
    kernel_size: int = 5,
    **settings: Unpack[TranSegPGDSettings],
) -> IterativeAttack:
    """TranSegPGD with MI, wide DI and TI: the image is always shown smaller, down to two thirds of its side.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207), MI (Y. Dong et al., CVPR
    2018, arXiv 1710.06081), DI (C. Xie et al., CVPR 2019, arXiv 1803.06978) and TI (Y. Dong et al., CVPR 2019,
    arXiv 1904.02884).
    Of these it was the strongest in measurements on real networks before `transegpgd_best`. See `Momentum`,
    `InputDiversity` and `TranslationInvariance`. Other arguments are those of `transegpgd`.
    """
    gradients = [TranslationInvariance(kernel_size), *momentum(decay)]
    return _with("transegpgd_strong", settings, [InputDiversity(scale, prob)], gradients)


def transegpgd_best(
    *,
    power: float = 0.5,
    pull: float = 0.0,
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
    smooth_slopes: float = 0.5,
    **settings: Unpack[TranSegPGDSettings],
) -> IterativeAttack:
    """TranSegPGD in the surroundings of `transfer_best`: MI and TI on recoloured, slanted views, balanced and softened.

    10 steps (`long_steps`), temperature 3, gamma = beta = 0.3. With gamma = beta = pull = 0.5 it is `transfer_best`, at
    fewer than 100 steps. See there for its parts, and `FoolAllPixels` and `TransferablePixels` for the two stages.
    Other arguments are those of `transegpgd`.

    Source: ours, a combination of TranSegPGD (X. Jia et al., 2023, arXiv 2312.02207), MI (Y. Dong et al., CVPR
    2018, arXiv 1710.06081), TI (Y. Dong et al., CVPR 2019, arXiv 1904.02884), SGM (D. Wu et al., ICLR 2020, arXiv
    2002.05990), BPA (X. Wang et al., NeurIPS 2023, arXiv 2306.12685) and CFM (J. Byun et al., CVPR 2023, arXiv
    2305.14846).
    """
    usual: TranSegPGDSettings = {
        "random_start": False, "steps": 10, "gamma": 0.3, "beta": 0.3, "temperature": 3.0
    }  # fmt: skip
    inputs = [RandomColour(grey, contrast, brightness), RandomAffine(degrees, translate, scale, slant=slant)]
    gradients = [TranslationInvariance(kernel_size), *momentum(decay)]
    sources = source_changes(skip_gamma, 0.1, feature_mix, smooth_slopes)
    known: TranSegPGDSettings = {**usual, **settings}
    return _with("transegpgd_best", known, inputs, gradients, sources, power=power, pull=pull, linf_step=long_steps)

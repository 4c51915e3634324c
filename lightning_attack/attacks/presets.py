"""Attacks by the names of their papers, with the budget of this project: L-inf 8/255, steps of 0.01, 20 steps.

One budget for all makes a fair comparison; each docstring says what its paper used. All take the keywords of `Settings`
besides their own, raise `ValueError` where a value is out of range, and return an `IterativeAttack`: call it with
`(model, images, labels)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from lightning_attack.attacks.gradient_transforms import GradientTransform, Momentum, Nesterov, TranslationInvariance
from lightning_attack.attacks.input_transforms import InputDiversity, InputTransform
from lightning_attack.attacks.iterative import IterativeAttack
from lightning_attack.attacks.norms import Norm, make_norm
from lightning_attack.attacks.objectives import CosPGD, CrossEntropy, Objective, SegPGD
from lightning_attack.attacks.pixels import Pixels
from lightning_attack.attacks.transegpgd import FoolAllPixels, KLDirection, Staged, Switch, TransferablePixels


class Settings(TypedDict, total=False):
    """Keywords of every preset.

    Args:
        eps: radius of the ball, of [0, 1] pixels, above 0: a number or a fraction. Default `8/255` in L-inf.
        step_size: length of a step, above 0, in the unit of `eps`. Default: in L-inf 0.01 (the step of SegPGD and
            CosPGD), in L2 2.5 eps / steps (A. Madry et al., ICLR 2018, arXiv 1706.06083); a single step is `eps` long.
        steps: 1 or more, default 20; each is one forward and one backward pass.
        random_start: start at a random point of the ball instead of the clean image. Default: as the paper does.
        norm: `linf` (default), `l2`, or a `Norm`, which then brings its own radius.
        input_transforms: further techniques, applied before those that the preset's name stands for.
        gradient_transforms: likewise.
        name: name in tables and folders. Default: the preset's.
    """

    eps: Pixels
    step_size: Pixels | None
    steps: int
    random_start: bool
    norm: str | Norm
    input_transforms: Sequence[InputTransform] | None
    gradient_transforms: Sequence[GradientTransform] | None
    name: str | None


def _attack(
    preset: str,
    objective: Objective,
    settings: Settings,
    defaults: Settings | None = None,
    inputs: Sequence[InputTransform] = (),
    gradients: Sequence[GradientTransform] = (),
) -> IterativeAttack:
    """The attack of a preset: its objective and own transforms, the caller's settings, the preset's defaults."""
    if unknown := settings.keys() - Settings.__annotations__.keys():
        known = ", ".join(Settings.__annotations__)
        raise TypeError(f"{preset} has no setting {', '.join(sorted(unknown))}; besides its own it takes {known}")
    values: Settings = {**(defaults or {}), **settings}
    if values.get("norm") == "l2" and "eps" not in values:
        raise ValueError("norm='l2' needs eps: the Euclidean length of an image's perturbation, such as 1.0")
    norm = make_norm(values.get("norm", "linf"), values.get("eps", "8/255"))
    steps, step_size = values.get("steps", 20), values.get("step_size")
    if step_size is None:
        step_size = norm.eps if steps == 1 else 0.01 if norm.name == "linf" else 2.5 * norm.eps / max(steps, 1)
    return IterativeAttack(
        objective,
        norm,
        steps,
        step_size,
        values.get("random_start", False),
        [*(values.get("input_transforms") or []), *inputs],
        [*(values.get("gradient_transforms") or []), *gradients],
        name=values.get("name") or preset,
    )


def _momentum(decay: float) -> list[GradientTransform]:
    """MI, or nothing for decay 0, where it would only change the gradient's size and keep another one out."""
    return [Momentum(decay)] if decay else []


def fgsm(**settings: Unpack[Settings]) -> IterativeAttack:
    """FGSM: one step of the whole radius along the sign of the gradient.

    Source: I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015,
    arXiv 1412.6572.

    Here the default of `steps` is 1, and so that of `step_size` is `eps`.

    Example:
        >>> fgsm(eps="4/255").steps
        1
    """
    return _attack("fgsm", CrossEntropy(), settings, {"steps": 1})


def bim(**settings: Unpack[Settings]) -> IterativeAttack:
    """BIM (I-FGSM): steps from the clean image.

    Source: A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical world", 2016, arXiv 1607.02533
    (there: step 1/255).
    """
    return _attack("bim", CrossEntropy(), settings)


def pgd(**settings: Unpack[Settings]) -> IterativeAttack:
    """PGD: steps from a random point of the ball.

    Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
    arXiv 1706.06083 (common ports: eps 8/255, step 2/255, 10 steps; segmentation papers: step 0.01, 20 to 100 steps).

    Example:
        >>> pgd(eps="8/255", steps=40).random_start
        True
    """
    return _attack("pgd", CrossEntropy(), settings, {"random_start": True})


def segpgd(**settings: Unpack[Settings]) -> IterativeAttack:
    """SegPGD: weight from the still correct pixels to equal ones, see `SegPGD`.

    Source: J. Gu et al., ECCV 2022, arXiv 2207.12391 (there: eps 0.03, step 0.01, random start, 3 to 100 steps).
    """
    return _attack("segpgd", SegPGD(), settings, {"random_start": True})


def cospgd(**settings: Unpack[Settings]) -> IterativeAttack:
    """CosPGD: weight by the cosine of prediction and label, see `CosPGD`.

    Source: S. Agnihotri et al., ICML 2024, arXiv 2302.02213 (there: eps about 8/255, step 0.01, random start).
    """
    return _attack("cospgd", CosPGD(), settings, {"random_start": True})


def mi_fgsm(*, decay: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """MI-FGSM: momentum, see `Momentum`.

    Source: Y. Dong et al., CVPR 2018, arXiv 1710.06081 (there: eps 16/255, step eps/10, 10 steps, decay 1).
    """
    return _attack("mi_fgsm", CrossEntropy(), settings, gradients=[Momentum(decay)])


def ni_fgsm(*, decay: float = 1.0, **settings: Unpack[Settings]) -> IterativeAttack:
    """NI-FGSM: Nesterov momentum, see `Nesterov`.

    Source: J. Lin et al., ICLR 2020, arXiv 1908.06281 (there: eps 16/255, step eps/10, 10 steps, decay 1).
    """
    return _attack("ni_fgsm", CrossEntropy(), settings, gradients=[Nesterov(decay)])


def di_fgsm(
    *, decay: float = 0.0, scale: float = 0.9, prob: float = 0.5, undo: bool = True, **settings: Unpack[Settings]
) -> IterativeAttack:
    """DI-FGSM: input diversity, see `InputDiversity`; without momentum, as in the paper's DI2-FGSM (`decay` 0).

    Source: C. Xie et al., CVPR 2019, arXiv 1803.06978 (there: eps 15/255, step 1/255, 19 steps, prob 0.5; sizes 299 to
    330, which is a scale of about 0.9).
    """
    diversity = InputDiversity(scale, prob, undo)
    return _attack("di_fgsm", CrossEntropy(), settings, inputs=[diversity], gradients=_momentum(decay))


def ti_fgsm(
    *, decay: float = 0.0, kernel_size: int = 15, nsig: float = 3.0, **settings: Unpack[Settings]
) -> IterativeAttack:
    """TI-FGSM: gradients smoothed by a Gaussian, see `TranslationInvariance`; without momentum (`decay` 0).

    Source: Y. Dong et al., CVPR 2019, arXiv 1904.02884 (there: eps 16/255, 15 x 15 kernel).
    """
    smooth = TranslationInvariance(kernel_size, nsig)
    return _attack("ti_fgsm", CrossEntropy(), settings, gradients=[smooth, *_momentum(decay)])


def transegpgd(
    *,
    gamma: float = 0.1,
    beta: float = 0.1,
    kl: KLDirection = "adversarial||clean",
    threshold: float | str = "mean",
    switch: Switch | None = None,
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

    gamma = beta = 0.5 is PGD, bit for bit.

    Example:
        >>> transegpgd(eps="8/255", steps=20).objective.switches[0].at
        0.5
    """
    stages = [FoolAllPixels(gamma), TransferablePixels(beta, kl, threshold)]
    return _attack("transegpgd", Staged(stages, [switch or Switch()]), settings, {"random_start": True})


class TranSegPGDSettings(Settings, total=False):
    """Keywords of the presets that add transforms to `transegpgd`; see there."""

    gamma: float
    beta: float
    kl: KLDirection
    threshold: float | str
    switch: Switch | None


def _transegpgd_with(
    preset: str,
    settings: TranSegPGDSettings,
    inputs: Sequence[InputTransform],
    gradients: Sequence[GradientTransform],
) -> IterativeAttack:
    """TranSegPGD with further transforms, after those that the caller gives."""
    settings = settings.copy()
    settings["input_transforms"] = [*(settings.get("input_transforms") or []), *inputs]
    settings["gradient_transforms"] = [*(settings.get("gradient_transforms") or []), *gradients]
    settings["name"] = settings.get("name") or preset
    return transegpgd(**settings)


def transegpgd_mi(*, decay: float = 1.0, **settings: Unpack[TranSegPGDSettings]) -> IterativeAttack:
    """TranSegPGD with MI (`Momentum`); the arguments are those of `transegpgd` and the momentum's decay."""
    return _transegpgd_with("transegpgd_mi", settings, [], _momentum(decay))


def transegpgd_mi_di_ti(
    *,
    decay: float = 1.0,
    scale: float = 0.9,
    prob: float = 0.7,
    kernel_size: int = 5,
    **settings: Unpack[TranSegPGDSettings],
) -> IterativeAttack:
    """TranSegPGD with MI, DI and TI (`Momentum`, `InputDiversity`, `TranslationInvariance`).

    DI has probability 0.7 and TI a 5 x 5 kernel, as in "Transferable Attack for Semantic Segmentation", 2023,
    arXiv 2307.16572; the papers of DI and TI, on classification, have 0.5 and 15 x 15. Other arguments are those of
    `transegpgd`.
    """
    gradients = [TranslationInvariance(kernel_size), *_momentum(decay)]
    return _transegpgd_with("transegpgd_mi_di_ti", settings, [InputDiversity(scale, prob)], gradients)

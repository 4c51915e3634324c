"""Settings that presets share, and how an attack is made of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

from lightning_attack.attacks.gradient_transforms.base import GradientTransform, Momentum
from lightning_attack.attacks.input_transforms.base import InputTransform
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.schedule import StepSchedule
from lightning_attack.attacks.norms import Norm, make_norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.presets.published import published
from lightning_attack.attacks.source_transforms.activations import SmoothBackward
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.source_transforms.features import CleanFeatureMixup
from lightning_attack.attacks.source_transforms.residuals import SkipGradients
from lightning_attack.common.pixels import Pixels, parse_pixels


class Ball(TypedDict, total=False):
    """Keywords of every preset with a budget.

    Args:
        eps: radius of the ball, of [0, 1] pixels, above 0: a number or a fraction. Default `8/255` in L-inf.
        steps: 1 or more, default 20; each takes one forward and one backward pass for each view.
        random_start: start at a random point of the ball instead of the clean image. Default: as the paper does.
        norm: `linf` (default), `l2`, or a `Norm`, which then brings its own radius.
        name: name in tables and folders. Default: the preset's.
        display_name: name in papers: in LaTeX tables, figures and pages. Default: what its paper calls it; with a
            `name` of its own, that.
    """

    eps: Pixels
    steps: int
    random_start: bool
    norm: str | Norm
    name: str | None
    display_name: str | None


class Settings(Ball, total=False):
    """Keywords of the presets on the common loop: those of `Ball`, and further parts.

    Args:
        step_size: length of a step, above 0, in the unit of `eps`. Default: in L-inf 0.01 (the step of SegPGD and
            CosPGD), in L2 2.5 eps / steps (A. Madry et al., ICLR 2018, arXiv 1706.06083); a single step is `eps` long.
            Presets that take gradients one step ahead (NI, VNI, EMI, ...) have eps / 10, as their papers: with longer
            steps these points lie far outside of the ball; `ie_fgsm` and `pgn`, which do so too, keep 0.01.
            `transfer_best` and `transegpgd_best` have `long_steps`, `dem` has eps, and `pi_fgsm` 0.32 eps.
        step_schedule: how the length of a step changes around `step_size`: `constant` (default), `cosine`, `linear` or
            `dynamic`, see `StepSchedule`.
        finish: `sign` ends at a corner of the L-inf ball, see `IterativeAttack`. Default: the last iterate.
        input_transforms: further techniques, applied before those that the preset's name stands for.
        gradient_transforms: likewise.
        source_transforms: likewise.
    """

    step_size: Pixels | None
    step_schedule: StepSchedule
    finish: Literal["sign"] | None
    input_transforms: Sequence[InputTransform] | None
    gradient_transforms: Sequence[GradientTransform] | None
    source_transforms: Sequence[SourceTransform] | None


def build(
    preset: str,
    objective: Objective,
    settings: Settings,
    defaults: Settings | None = None,
    inputs: Sequence[InputTransform] = (),
    gradients: Sequence[GradientTransform] = (),
    sources: Sequence[SourceTransform] = (),
    kind: type[IterativeAttack] = IterativeAttack,
    looks_ahead: bool = False,
    linf_step: float | Callable[[float, int], float] = 0.01,
    **own: Any,
) -> IterativeAttack:
    """The attack of a preset: its objective and own transforms, the caller's settings, the preset's defaults.

    Args:
        preset: its name.
        objective: what it maximises.
        settings: the caller's.
        defaults: the preset's, where they are not those of `Settings`.
        inputs: its own input transforms, after the caller's.
        gradients: its own gradient transforms, after the caller's, but before those of the caller that scale steps.
        sources: its own source transforms, after the caller's.
        kind: the class of the attack.
        looks_ahead: whether it takes gradients at a distance of `step_size`.
        linf_step: its default step in L-inf, if it does not look ahead; or a function of the radius and the number
            of steps that gives it.
        own: further arguments of that class.
    """
    check_known(preset, settings, Settings)
    norm = make_ball(settings)
    values: Settings = {**(defaults or {}), **settings}
    steps, step_size = values.get("steps", 20), values.get("step_size")
    if step_size is None:
        usual = linf_step(norm.eps, steps) if callable(linf_step) else linf_step
        usual = 0.1 * norm.eps if looks_ahead else usual  # at 8/255 what "0.8/255" is, to the bit
        step_size = norm.eps if steps == 1 else usual if norm.name == "linf" else 2.5 * norm.eps / max(steps, 1)
    shape = {"step_schedule": values.get("step_schedule", "constant"), "finish": values.get("finish")}
    if shape.keys() <= inspect.signature(kind).parameters.keys():
        own = own | shape
    elif shape != {"step_schedule": "constant", "finish": None}:
        raise ValueError(f"{preset} has a loop of its own: step_schedule must be constant there, and finish null")
    theirs = values.get("gradient_transforms") or []
    attack = kind(
        objective=objective,
        norm=norm,
        steps=steps,
        step_size=step_size,
        random_start=values.get("random_start", False),
        input_transforms=[*(values.get("input_transforms") or []), *inputs],
        # What scales steps looks at their final direction.
        gradient_transforms=[
            *(transform for transform in theirs if not transform.scales),
            *gradients,
            *(transform for transform in theirs if transform.scales),
        ],
        source_transforms=[*(values.get("source_transforms") or []), *sources],
        name=values.get("name") or preset,
        **own,
    )
    return published(attack, preset, values.get("name"), values.get("display_name"))


def long_steps(eps: float, steps: int) -> float:
    """Steps that are 6.4 radii long together: 0.02 each for 10 steps at 8/255, 0.002 for 100.

    Longer ones for few steps, because momentum then crosses the ball several times; for many steps such long ones are
    no better than ten (measured, see the README of attacks).

    Example:
        >>> [round(long_steps(8 / 255, steps), 4) for steps in (10, 20, 100)]
        [0.02, 0.01, 0.002]
    """
    return 0.2 * (eps / (8 / 255)) / max(steps, 1)


def check_known(preset: str, settings: Ball, kind: type) -> None:
    """Raise `TypeError` for a keyword that presets of this kind do not have."""
    if unknown := settings.keys() - kind.__annotations__.keys():
        known = ", ".join(kind.__annotations__)
        raise TypeError(f"{preset} has no setting {', '.join(sorted(unknown))}; besides its own it takes {known}")


def make_ball(settings: Ball) -> Norm:
    """The ball that settings describe."""
    if settings.get("norm") == "l2" and "eps" not in settings:
        raise ValueError("norm='l2' needs eps: the Euclidean length of an image's perturbation, such as 1.0")
    norm, eps = settings.get("norm", "linf"), settings.get("eps", "8/255")
    if isinstance(norm, Norm) and "eps" in settings and parse_pixels(eps) != norm.eps:
        raise ValueError(f"eps={eps!r}, but norm brings the radius {norm.eps:.6g}; give one of the two")
    return make_norm(norm, eps)


def usual_noise(settings: Settings) -> float:
    """The size of noise in units of [0, 1] pixels: eps, or in L2, where that is a length of whole images, 8/255."""
    ball = make_ball(settings)
    return ball.eps if ball.name == "linf" else 8 / 255


def momentum(decay: float) -> list[GradientTransform]:
    """MI, or nothing for decay 0, where it would only change the gradient's size and keep another one out."""
    return [Momentum(decay)] if decay else []


def source_changes(
    skip_gamma: float | None, feature_prob: float, feature_mix: float, smooth_slopes: float
) -> list[SourceTransform]:
    """The source transforms of `transfer_best`, each left out where the source has nothing that it could change.

    In ResNets all that the blocks hand on passes the activations behind their sums. These keep their slopes, and more
    of the branches' gradient is left.
    """
    usual = SkipGradients(0.5, required=False, gamma_activated=0.7)
    return [
        usual if skip_gamma is None else SkipGradients(skip_gamma, required=False),
        CleanFeatureMixup(feature_prob, feature_mix, required=False),
        SmoothBackward(smooth_slopes, start=0.0, required=False, behind_sums=False),
    ]

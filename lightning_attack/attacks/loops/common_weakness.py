"""`CommonWeakness`: small steps against each member after the other, from a point where all of them are harder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.gradient_transforms.base import GradientTransform
from lightning_attack.attacks.input_transforms.base import InputTransform
from lightning_attack.attacks.loops.gradient import StepGradient
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.members import MakeGradient, MembersGradient
from lightning_attack.attacks.loops.schedule import StepSchedule
from lightning_attack.attacks.norms import Norm, unit
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.common.pixels import Pixels, parse_pixels


class CommonWeakness(IterativeAttack):
    """CWA: sharpness-aware steps (SAM) that also encourage the members' gradients to point the same way (CSE).

    Source: H. Chen, Y. Zhang, Y. Dong, X. Yang, H. Su, J. Zhu, "Rethinking Model Ensemble in Transfer-based Adversarial
    Attacks", ICLR 2024, arXiv 2303.09105; with `Momentum` MI-CWA.

        g = gradient of the ensemble at x,     x' <- one step of reverse_size from x against g
        for each member k in turn:  G <- decay * G + g_k / |g_k|_2   with g_k the gradient of member k at x',
                                    x' <- into the ball (x' + inner_size * sqrt(N) * G)
        what gradient transforms are given:  x' - x

    G goes on from step to step. N is the number of values of the image, so that `inner_size` is about what each value
    moves; the paper's step of 250 on 3 x 299 x 299 is 0.48. It is far beyond the ball on purpose.

    Each step costs one gradient of the ensemble and one of each member.

    Args:
        objective: what to maximise; the paper's is `CrossEntropy`.
        norm: the budget.
        steps: number of steps, 1 or more; the paper's is 10.
        step_size: length of a step, above 0; the paper's is eps / 5.
        inner_size: of the steps on members, above 0.
        reverse_size: of the step against g, above 0: a number or a fraction such as `1/255`; the paper's is eps / 15.
            None = that, in the unit of eps.
        decay: share of G that stays, 0 or more; the paper's is 1.
        random_start: start at a random point of the ball; the released code has both.
        input_transforms: as in `IterativeAttack`.
        gradient_transforms: of x' - x. None that takes several gradients in a step: G would go on with each.
        name: name in tables and folders.
        step_schedule: as in `IterativeAttack`.
        finish: as in `IterativeAttack`.
        source_transforms: of the ensemble and of each member.

    Raises:
        ValueError: as `IterativeAttack`; a size or decay is out of range, a gradient transform samples, or at a call a
            model that is no ensemble.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> CommonWeakness(CrossEntropy(), Linf("15/255")).reverse_size * 255
        1.0
    """

    needs_members = True

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        inner_size: float = 0.5,
        reverse_size: Pixels | None = None,
        decay: float = 1.0,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "cwa",
        step_schedule: StepSchedule = "constant",
        finish: Literal["sign"] | None = None,
        source_transforms: Sequence[SourceTransform] | None = None,
    ) -> None:
        super().__init__(
            objective,
            norm,
            steps,
            step_size,
            random_start,
            input_transforms,
            gradient_transforms,
            name,
            step_schedule,
            finish,
            source_transforms,
        )
        if not 0 < inner_size < math.inf:  # NaN too
            raise ValueError(f"inner_size={inner_size}: must be a number above 0, such as 0.5")
        if not 0 <= decay < math.inf:
            raise ValueError(f"decay={decay}: must be a number, 0 or more; the paper's is 1")
        for transform in self.gradient_transforms:
            if transform.samples:
                raise ValueError(
                    f"{type(transform).__name__} takes several gradients in a step, and {name} has an inner momentum, "
                    "which goes on with each; use input transforms"
                )
        self.inner_size, self.decay = inner_size, decay
        self.reverse_size = norm.eps / 15 if reverse_size is None else parse_pixels(reverse_size, "reverse_size")

    def estimate(self, problem: Problem) -> StepGradient:
        images = problem.images

        def back(x: Tensor, gradient: Tensor) -> Tensor:
            return problem.inside(self.norm.step(x, images, -problem.inside_only(gradient), self.reverse_size))

        def on(x: Tensor, momentum: Tensor) -> Tensor:
            delta = x + self.inner_size * math.sqrt(images[0].numel()) * momentum - images
            return problem.inside((images + self.norm.project(delta)).clamp(0, 1))

        return _Weakness(problem, self.gradient, back, on, self.decay)


class _Weakness(MembersGradient):
    """The way from a point to where the inner steps lead."""

    def __init__(
        self,
        problem: Problem,
        make: MakeGradient,
        back: Callable[[Tensor, Tensor], Tensor],
        on: Callable[[Tensor, Tensor], Tensor],
        decay: float,
    ) -> None:
        super().__init__(problem, make)
        self._whole = make(problem)
        self._back, self._on, self._decay = back, on, decay
        self._momentum = torch.zeros_like(problem.images)

    def begin(self, step: int) -> None:
        super().begin(step)
        self._whole.begin(step)

    def forget(self) -> None:
        super().forget()
        self._whole.forget()

    def __call__(self, x: Tensor) -> Tensor:
        inner = self._back(x, self._whole(x))
        for loss in self.losses:
            gradient = loss(inner)
            self._momentum = self._decay * self._momentum + unit(gradient)
            inner = self._on(inner, self._momentum)
        return inner - x

    @property
    def figures(self) -> dict[str, Tensor]:
        return self._whole.figures

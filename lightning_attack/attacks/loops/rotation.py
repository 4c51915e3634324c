"""`SourceRotation`: attack an ensemble with one member in each step."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.gradient_transforms.base import GradientTransform
from lightning_attack.attacks.input_transforms.base import InputTransform
from lightning_attack.attacks.loops.gradient import StepGradient
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.members import MakeGradient, MembersGradient
from lightning_attack.attacks.loops.schedule import StepSchedule
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.common.pixels import Pixels

Order = Literal["cyclic", "random"]


class SourceRotation(IterativeAttack):
    """Longitudinal ensemble: each step asks one member of the ensemble, in turn or at random.

    Source: Y. Li, S. Bai, Y. Zhou, C. Xie, Z. Zhang, A. Yuille, "Learning Transferable Adversarial Examples via Ghost
    Networks", AAAI 2020, arXiv 1812.03413, which attacks another ghost network in each step.

        step t:  the gradient of member k_t alone,     k_t = t mod K (`cyclic`), or drawn with the members' weights

    An ensemble for the price of one network. The order is the same for all images and batches, because a pass takes the
    whole batch: so an image's result does not depend on its batch. `cyclic` does not use the members' weights. Each
    member has an objective's memory of its own, as in an ensemble by loss; what is logged is of the member of the step.

    Args:
        objective: what to maximise.
        norm: the budget.
        steps: number of steps, 1 or more.
        step_size: length of a step, above 0.
        order: `cyclic` or `random`.
        order_seed: of the order `random`.
        random_start: start at a random point of the ball.
        input_transforms: as in `IterativeAttack`.
        gradient_transforms: as in `IterativeAttack`; `Momentum` goes on from member to member.
        name: name in tables and folders.
        step_schedule: as in `IterativeAttack`.
        finish: as in `IterativeAttack`.
        source_transforms: of each member.

    Raises:
        ValueError: as `IterativeAttack`; an unknown order, or at a call a model that is no ensemble.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> attack = SourceRotation(CrossEntropy(), Linf(), steps=5)
        >>> [attack.member(step, [0.5, 0.3, 0.2]) for step in range(5)]
        [0, 1, 2, 0, 1]
    """

    needs_members = True

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        order: Order = "cyclic",
        order_seed: int = 0,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "source_rotation",
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
        if order not in ("cyclic", "random"):
            raise ValueError(f"order='{order}': must be cyclic or random")
        self.order, self.order_seed = order, order_seed

    def member(self, step: int, weights: Sequence[float]) -> int:
        """Number of the member that a step asks."""
        if self.order == "cyclic":
            return step % len(weights)
        (chosen,) = random.Random(f"{self.order_seed}/{step}").choices(range(len(weights)), weights=weights)
        return chosen

    def estimate(self, problem: Problem) -> StepGradient:
        return _Rotating(problem, self.gradient, self.member)


class _Rotating(MembersGradient):
    """The gradient of the member whose turn it is."""

    def __init__(self, problem: Problem, make: MakeGradient, member: Callable[[int, Sequence[float]], int]) -> None:
        super().__init__(problem, make)
        self._member, self._turn = member, 0

    def begin(self, step: int) -> None:
        super().begin(step)
        self._turn = self._member(step, self.weights)

    def __call__(self, x: Tensor) -> Tensor:
        return self.losses[self._turn](x)

    @property
    def figures(self) -> dict[str, Tensor]:
        return self.losses[self._turn].figures

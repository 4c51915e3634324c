"""`GlobalMomentum`: a few large steps fill the momentum, then the attack starts anew with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.gradient_transforms.base import GradientTransform
from lightning_attack.attacks.input_transforms.base import InputTransform
from lightning_attack.attacks.loops.iterative import Climb, IterativeAttack
from lightning_attack.attacks.loops.schedule import StepSchedule
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.common.pixels import Pixels


class GlobalMomentum(IterativeAttack):
    """GI: look around with large steps first, and start again with the momentum that this gave.

    Source: J. Wang et al., "Boosting the Transferability of Adversarial Attacks with Global Momentum Initialization",
    2022, arXiv 2211.11236.

        x' = start,  m = 0;    pre_steps times:  m as in the attack itself,  x' <- one step of factor * step_size
        x = start;             then the attack itself, whose m goes on

    What is kept is whatever the gradient transforms remember; without one that accumulates, such as `Momentum`, the
    first phase would be in vain. In it the objective stays in its first step, nothing is logged, and all steps are
    equally long; afterwards the objective has forgotten it.

    Each pre-step costs as much as a step.

    Args:
        objective: what to maximise; the paper's is `CrossEntropy`.
        norm: the budget.
        steps: number of steps after the first phase, 1 or more; the paper's is 10.
        step_size: length of these steps, above 0.
        pre_steps: number of steps of the first phase, 0 or more; the paper's is 5, 0 is `IterativeAttack`.
        factor: how much longer these are, above 0; the paper's is 10.
        random_start: start at a random point of the ball; each phase at one of its own.
        input_transforms: as in `IterativeAttack`.
        gradient_transforms: as in `IterativeAttack`; one must accumulate.
        name: name in tables and folders.
        step_schedule: of the steps after the first phase, see `StepSchedule`.
        finish: as in `IterativeAttack`.
        source_transforms: as in `IterativeAttack`.

    Raises:
        ValueError: as `IterativeAttack`; pre_steps below 0, factor not above 0, or no gradient transform accumulates.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> GlobalMomentum(CrossEntropy(), Linf())
        Traceback (most recent call last):
            ...
        ValueError: gi_fgsm keeps the momentum of its first phase, and there is none; add a transform such as Momentum
    """

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        pre_steps: int = 5,
        factor: float = 10.0,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "gi_fgsm",
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
        if pre_steps < 0:
            raise ValueError(f"pre_steps={pre_steps}: must be 0 or more; the paper's is 5")
        if not 0 < factor < float("inf"):  # NaN too
            raise ValueError(f"factor={factor}: must be a number above 0; the paper's is 10")
        if not any(transform.accumulates for transform in self.gradient_transforms):
            raise ValueError(
                f"{name} keeps the momentum of its first phase, and there is none; add a transform such as Momentum"
            )
        self.pre_steps, self.factor = pre_steps, factor

    def climb(self, problem: Problem) -> Climb:
        climb = super().climb(problem)
        point = self.start(problem)
        for _ in range(self.pre_steps):
            direction = climb.direction(0, point)
            point = problem.inside(self.norm.step(point, problem.images, direction, self.factor * self.step_size))
        climb.start_anew()
        return climb

"""`Soup`: the mean of several runs of an attack on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.gradient_transforms.base import GradientTransform
from lightning_attack.attacks.input_transforms.base import InputTransform, check_count
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.schedule import StepSchedule
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.common.pixels import Pixels


class Soup(IterativeAttack):
    """AES: average the adversarial images of several runs with other random numbers.

    Source: B. Yang et al., "Adversarial Example Soups: Improving Transferability and Stealthiness for Free", 2024,
    arXiv 2402.18370.

        x = (x_1 + ... + x_m) / m,     x_i the result of run i, with a start, views and noise of its own

    The ball and [0, 1] are convex, so the mean lies in both, usually well inside the ball: the runs agree on some
    values only. `finish="sign"` carries all to its border. The runs go side by side, step by step; what is watched is
    the mean of the iterates, and what is logged the mean of the runs' figures. Without anything random all runs are
    alike.

    Each step costs as much as `runs` steps of `IterativeAttack`.

    Args:
        objective: what to maximise.
        norm: the budget.
        steps: number of steps of each run, 1 or more.
        step_size: length of a step, above 0.
        runs: m, 1 or more. 1 is `IterativeAttack`.
        random_start: start each run at a random point of the ball.
        input_transforms: as in `IterativeAttack`.
        gradient_transforms: as in `IterativeAttack`; each run has a momentum of its own.
        name: name in tables and folders.
        step_schedule: as in `IterativeAttack`.
        finish: as in `IterativeAttack`, of the mean.
        source_transforms: as in `IterativeAttack`.

    Raises:
        ValueError: as `IterativeAttack`, or runs below 1.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> attack = Soup(CrossEntropy(), Linf(0.25), steps=1, step_size=0.125, runs=3, random_start=True)
        >>> flat = lambda images: torch.cat([images[:, :1], 1 - images[:, :1]], 1) * 0    # no gradient: the mean start
        >>> images, labels = torch.full((1, 3, 9, 9), 0.5), torch.zeros(1, 9, 9, dtype=torch.int64)
        >>> bool(0.05 < (attack(flat, images, labels, [0]) - images).abs().mean() < 0.1)      # 0.125 of a single start
        True
    """

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        runs: int = 5,
        random_start: bool = True,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "aes",
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
        self.runs = check_count("runs", runs)

    @property
    def clean_passes(self) -> int:
        return self.runs * super().clean_passes

    def perturb(self, problem: Problem) -> Tensor:
        images = problem.images
        climbs = [self.climb(problem) for _ in range(self.runs)]
        points = [self.start(problem) for _ in climbs]
        for step in range(self.steps):
            points = [climb.step(step, point) for climb, point in zip(climbs, points, strict=True)]
            figures = [climb.figures for climb in climbs]
            problem.log(
                step, {name: torch.stack([known[name] / self.runs for known in figures]).sum(0) for name in figures[0]}
            )
            if problem.watch is not None or step == self.steps - 1:
                # The mean of points in the ball, but for rounding.
                delta = self.norm.project(torch.stack(points).mean(0) - images)
                finished = self.finished(problem, problem.inside((images + delta).clamp(0, 1)))
                problem.show(step, finished)
        return finished

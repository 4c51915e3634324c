"""`SVRE`: attack an ensemble with gradients of single members, corrected by their difference from the ensemble's."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.gradient_transforms.base import Budget, GradientFunction, GradientTransform, unit_mean
from lightning_attack.attacks.input_transforms.base import InputTransform
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.members import members_of, of_each
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.common.pixels import Pixels


class SVRE(IterativeAttack):
    """SVRE-MI: stochastic variance reduced ensemble attack, with an inner loop over random members in every step.

    Source: Y. Xiong, J. Lin, M. Zhang, J. E. Hopcroft, K. He, "Stochastic Variance Reduced Ensemble Adversarial Attack
    for Boosting the Adversarial Transferability", CVPR 2022, arXiv 2111.10752.

        g = gradient of the ensemble at x,     x' = x,  G = 0
        inner_steps times:  g' = gradient of member k at x' - (gradient of member k at x - g),    k random
                            G <- decay * G + g' / mean|g'|,     x' <- one step of step_size from x' along G
        m <- decay * m + G / mean|G|,     x <- one step of step_size from x along m

    The model must be an ensemble: a network with `members`, `weights` and `by`. Its own gradient g is that of the
    average it stands for (the paper's is that of the logits; by loss it is the mean of the members' gradients, and then
    g' is right on average). Which member an inner step uses is drawn with the members' weights from a stream
    of its own, the same for all images and batches, because a pass takes the whole batch: so an image's
    result does not depend on its batch, but another seed of the image changes nothing here.

    Each step costs one gradient of the ensemble, `inner_steps` of members at x', and one at x of each member that was
    drawn; the released code takes it anew every time, which with random input transforms gives other values.

    Args:
        objective: what to maximise; the paper's is `CrossEntropy`.
        norm: the budget.
        steps: number of outer steps, 1 or more; the paper's is 10.
        step_size: length of a step, outer and inner as in the released code, above 0.
        inner_steps: M, 1 or more. None = four times the number of members, the paper's 16 of 4.
        decay: share of the old momentum that stays, outer and inner, 0 or more; the paper's is 1.
        random_start: start at a random point of the ball; not in the released code, though in a well-known port.
        input_transforms: applied in order to what the networks are shown.
        order_seed: of the order of members.
        gradient_transforms: applied to the gradients of the ensemble and of each member, such as
            `TranslationInvariance`. None that accumulates, remembers or scales: the attack takes several gradients
            per step, and has its own momentum.
        name: name in tables and folders.
        source_transforms: of the ensemble and of each member.

    Raises:
        ValueError: as `IterativeAttack`; inner_steps below 1, decay below 0, a gradient transform that accumulates or
            remembers, or at a call a model that is no ensemble.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> SVRE(CrossEntropy(), Linf()).check_model(lambda images: images)
        Traceback (most recent call last):
            ...
        ValueError: svre needs an ensemble as source (with members, weights and by); a function has none
    """

    needs_members = True

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        inner_steps: int | None = None,
        decay: float = 1.0,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        order_seed: int = 0,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "svre",
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
            name=name,
            source_transforms=source_transforms,
        )
        if inner_steps is not None and inner_steps < 1:
            raise ValueError(f"inner_steps={inner_steps}: must be 1 or more (or null: four per member)")
        if not 0 <= decay < float("inf"):  # NaN too
            raise ValueError(f"decay={decay}: must be a number, 0 or more; the paper's is 1")
        for transform in self.gradient_transforms:
            if transform.accumulates or transform.remembers or transform.scales:
                raise ValueError(
                    f"{type(transform).__name__} must be evaluated once a step, and svre evaluates it many times; "
                    "its own momentum is set by decay"
                )
        self.inner_steps, self.decay, self.order_seed = inner_steps, decay, order_seed

    def order(self, members: int, weights: Sequence[float], step: int) -> list[int]:
        """Numbers of the members that the inner steps of an outer step use."""
        count = 4 * members if self.inner_steps is None else self.inner_steps
        return random.Random(f"{self.order_seed}/{step}").choices(range(members), weights=weights, k=count)

    def perturb(self, problem: Problem) -> Tensor:
        members, weights = members_of(problem)
        losses = [self.gradient(problem), *of_each(problem, self.gradient)]
        values = problem.images[0].numel()
        eps, step_size = (self.norm.per_value(length, values) for length in (self.norm.eps, self.step_size))
        budget = Budget(eps, step_size, self.steps, problem.draws)
        ensemble, *single = [self._transformed(problem, loss, budget) for loss in losses]
        adversarial, momentum = self.start(problem), torch.zeros_like(problem.images)
        for step in range(self.steps):
            budget.step = step
            for loss in losses:
                loss.begin(step)
            outer = ensemble(adversarial)
            corrections: dict[int, Tensor] = {}
            inner, direction = adversarial, torch.zeros_like(adversarial)
            for k in self.order(len(members), weights, step):
                if k not in corrections:
                    corrections[k] = single[k](adversarial) - outer
                direction = self.decay * direction + unit_mean(single[k](inner) - corrections[k])
                inner = self._step(problem, inner, direction)
            momentum = self.decay * momentum + unit_mean(direction)
            adversarial = self._step(problem, adversarial, momentum)
            problem.log(step, losses[0].figures)
            problem.show(step, adversarial)
        return adversarial

    def _transformed(self, problem: Problem, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        for transform in self.gradient_transforms:
            gradient = transform(gradient, budget)
        return lambda x: problem.inside_only(gradient(x))

    def _step(self, problem: Problem, x: Tensor, direction: Tensor) -> Tensor:
        return problem.inside(self.norm.step(x, problem.images, direction, self.step_size))

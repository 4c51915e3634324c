"""`IterativeAttack`: the one loop of all attacks that step inside a ball."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Model, Problem
from lightning_attack.attacks.features import Recorder
from lightning_attack.attacks.gradient_transforms.base import Budget, GradientFunction, GradientTransform, check_order
from lightning_attack.attacks.input_transforms.base import InputTransform, check_last
from lightning_attack.attacks.loops.gradient import LossGradient, StepGradient, loss_members
from lightning_attack.attacks.loops.schedule import StepSchedule, check_schedule, step_factor
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.source_transforms.source import check_traceable, transformed
from lightning_attack.common.pixels import Pixels, parse_pixels

Step = Callable[[Tensor, Tensor], Tensor]
"""Adversarial images and the direction to go -> the next adversarial images, inside the ball."""


class Climb:
    """Steps uphill of an attack on one batch: the gradient, what its transforms remember, and the budget.

    Args:
        problem: the batch.
        gradient: of the objective, or what stands for it.
        transforms: of the gradient; the first is next to the model.
        budget: what they are told.
        step_on: takes a step.
    """

    def __init__(
        self,
        problem: Problem,
        gradient: StepGradient,
        transforms: Sequence[GradientTransform],
        budget: Budget,
        step_on: Step,
    ) -> None:
        self._problem, self._gradient, self._budget, self._step_on = problem, gradient, budget, step_on
        self._ascent: GradientFunction = gradient
        for transform in transforms:
            # Lengths of steps are shared out among the values that move: gradients outside of the region do not count.
            self._ascent = transform(self._inside(self._ascent) if transform.scales else self._ascent, budget)

    def _inside(self, gradient: GradientFunction) -> GradientFunction:
        return lambda adversarial: self._problem.inside_only(gradient(adversarial))

    def direction(self, step: int, adversarial: Tensor) -> Tensor:
        """Where step number `step`, from 0, goes from there; zero outside of the region."""
        self._gradient.begin(step)
        self._budget.point, self._budget.step, self._budget.scale = adversarial, step, 1.0
        return self._problem.inside_only(self._ascent(adversarial))

    def step(self, step: int, adversarial: Tensor) -> Tensor:
        """The point after a step, inside the ball and the region."""
        direction = self.direction(step, adversarial)
        return self._problem.inside(self._step_on(adversarial, direction))

    def start_anew(self) -> None:
        """Let the objective forget the steps so far; the gradient transforms do not."""
        self._gradient.forget()

    @property
    def figures(self) -> dict[str, Tensor]:
        """What is known of the last step, see `IterativeAttack`."""
        return self._gradient.figures


class IterativeAttack(Attack):
    """Projected gradient ascent from five kinds of parts.

        query points <- gradient transforms (look ahead, sample)
        views        <- input transforms, each view's logits moved back to the image's geometry
        source       <- source transforms (other slopes on the way back, noise on features, ...)
        loss         <- objective, per pixel; summed over the pixels of each image
        gradient     <- with respect to the query point, mean over the views
        direction    <- gradient transforms (smooth, accumulate; some also scale the step of each value)
        x            <- norm: step, project to the ball, clamp to [0, 1]
        at the end   x <- the nearest corner of the ball, clamped to [0, 1], with `finish="sign"`

    In a targeted attack the gradient's sign is turned: the loss towards the wanted classes falls.

    After each step the log gets, per image: `loss` (mean over labelled pixels), `p_t` (share of labelled pixels that
    the attack had not won yet before the step: the model still predicted the label, or in a targeted attack not yet the
    wanted class), and what the objective reports, all from the first forward pass of the step: with DI on the moved
    view, with NI at the point ahead, with PGN at a random neighbour.

    Args:
        objective: what to maximise.
        norm: the budget.
        steps: number of steps, 1 or more.
        step_size: length of a step in the norm, above 0; a number or a fraction such as `2/255`.
        random_start: start at a random point of the ball instead of the clean image.
        input_transforms: applied in order to the image.
        gradient_transforms: the first is next to the model. Samplers before accumulators, those that scale steps last.
        step_schedule: how the length of a step changes around `step_size`, its mean; see `StepSchedule`. Transforms
            that look ahead by a step look ahead by `step_size`.
        finish: `sign` moves every value that changed to the border of the ball after the last step, x0 + eps sign(x -
            x0); L-inf only. None leaves the last iterate as it is.
        name: name in tables and folders.
        source_transforms: how the source is changed while gradients are taken, applied in order; scores never see it.

    Raises:
        ValueError: steps < 1, step_size <= 0, an unknown schedule or finish, `finish="sign"` with a norm whose ball has
            no corners, an order of transforms that cannot work, or an objective on features together with
            source transforms or with an input transform that moves pixels.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> attack = IterativeAttack(CrossEntropy(), Linf("51/255"), steps=2, step_size=0.15)
        >>> import torch
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)        # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> images, labels = torch.full((1, 3, 1, 2), 0.5), torch.tensor([[[0, 1]]])
        >>> attack(model, images, labels)[0, 0]       # darker where bright is right, brighter where dark is
        tensor([[0.3000, 0.7000]])
    """

    watchable = True

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "iterative",
        step_schedule: StepSchedule = "constant",
        finish: Literal["sign"] | None = None,
        source_transforms: Sequence[SourceTransform] | None = None,
    ) -> None:
        super().__init__(name)
        if steps < 1:
            raise ValueError(f"steps={steps}: must be 1 or more")
        self.objective, self.norm = objective, norm
        self.steps, self.step_size = steps, parse_pixels(step_size, "step_size")
        self.step_schedule, self.finish = check_schedule(step_schedule), finish
        if finish not in (None, "sign"):
            raise ValueError(f"finish={finish!r}: must be sign or null")
        if finish == "sign":
            norm.corner(torch.zeros(1))  # refuses if there is none
        self.random_start = random_start
        self.input_transforms = list(input_transforms or [])
        self.gradient_transforms = list(gradient_transforms or [])
        self.source_transforms = list(source_transforms or [])
        check_order(self.gradient_transforms)
        check_last(self.input_transforms)
        moving = [type(transform).__name__ for transform in self.input_transforms if transform.spatial]
        if self.objective.layers and moving:
            raise ValueError(
                f"{moving[0]} moves pixels, and {type(objective).__name__} compares features at their places, which "
                "cannot be moved back as logits can; use one of them"
            )
        if self.objective.layers and self.source_transforms:
            raise ValueError(
                f"{type(self.source_transforms[0]).__name__} runs the graph of the source, in which the layers of "
                f"{type(objective).__name__} have no names; use one of them"
            )

    @property
    def targetable(self) -> bool:
        return self.objective.targetable

    @property
    def mixes(self) -> bool:
        return any(transform.mixes for transform in self.input_transforms)

    @property
    def clean_passes(self) -> int:
        # Features of clean images have to be seen while the model runs.
        return int(self.objective.needs_clean and not self.objective.layers)

    def check_model(self, model: Model) -> None:
        networks = [network for network, _ in loss_members(model)]
        if self.needs_members:
            if not all(hasattr(model, name) for name in ("members", "weights", "by")):
                what = f"{type(model).__name__}" if hasattr(model, "forward") else "a function"
                raise ValueError(
                    f"{self.name} needs an ensemble as source (with members, weights and by); {what} has none"
                )
            ensemble: Any = model
            networks += ensemble.members
        for network in networks:
            Recorder(network, self.objective.layers)
        if any(transform.required for transform in self.source_transforms):
            check_traceable(model)

    def try_source(self, model: Model, images: Tensor) -> None:
        for network, _ in loss_members(model) if self.source_transforms else ():
            if (source := transformed(network, self.source_transforms)) is not None:
                with torch.no_grad():
                    source(images, Draws([0], images.device), 0, images)

    def gradient(self, problem: Problem, remember: bool = False) -> LossGradient:
        """The gradient of the objective, in all views, with the source transformed; `remember` as in `LossGradient`."""
        return LossGradient(
            problem, self.objective, self.input_transforms, self.steps, remember, self.source_transforms
        )

    def estimate(self, problem: Problem) -> StepGradient:
        """What the steps follow before gradient transforms; here the gradient."""
        return self.gradient(problem)

    def perturb(self, problem: Problem) -> Tensor:
        climb = self.climb(problem)
        adversarial = self.start(problem)
        for step in range(self.steps):
            adversarial = climb.step(step, adversarial)
            problem.log(step, climb.figures)
            if problem.watch is not None or step == self.steps - 1:
                finished = self.finished(problem, adversarial)
                problem.show(step, finished)
        return finished

    def climb(self, problem: Problem) -> Climb:
        """The steps of the attack on a batch, see `Climb`."""
        eps, step_size = (
            self.norm.per_value(length, problem.images[0].numel()) for length in (self.norm.eps, self.step_size)
        )
        budget = Budget(eps, step_size, self.steps, problem.draws, signs=self.norm.name == "linf")
        return Climb(problem, self.estimate(problem), self.gradient_transforms, budget, self.stepper(problem, budget))

    def start(self, problem: Problem) -> Tensor:
        """The point at which the first step begins."""
        return problem.inside(self.norm.start(problem.images, problem.draws)) if self.random_start else problem.images

    def stepper(self, problem: Problem, budget: Budget) -> Step:
        """The function that takes one step. Made once per batch, so it may keep state from step to step."""
        numbers = count()
        return lambda adversarial, direction: self.norm.step(
            adversarial, problem.images, direction, self.step_length(next(numbers), problem) * budget.scale
        )

    def step_length(self, step: int, problem: Problem) -> float | Tensor:
        """Length of a step in the norm: a number, or one for each image, (B, 1, 1, 1)."""
        factor = step_factor(self.step_schedule, step, self.steps, problem.draws)
        return self.step_size * (factor.to(problem.images.dtype) if isinstance(factor, Tensor) else factor)

    def finished(self, problem: Problem, adversarial: Tensor) -> Tensor:
        """The images that the attack returns if an iterate is its last."""
        if self.finish is None:
            return adversarial
        delta = self.norm.corner(adversarial - problem.images)
        return problem.inside((problem.images + delta).clamp(0, 1))

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        return self.norm.quantize(images, adversarial)

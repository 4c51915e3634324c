"""`APGD`: projected gradient ascent that finds its own step sizes, also from larger balls down to the budget."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from lightning_attack.attacks.base import Problem
from lightning_attack.attacks.loops.gradient import LossGradient, loss_members
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective


@dataclass(frozen=True)
class Evaluation:
    """A point and what the model gives there, image by image.

    Attributes:
        point: (B, 3, H, W).
        gradient: the direction up, (B, 3, H, W).
        control: the control loss: cross-entropy, (B,); in a targeted attack its negative.
        unfooled: number of labelled pixels that are not won, (B,).
    """

    point: Tensor
    gradient: Tensor
    control: Tensor
    unfooled: Tensor

    def where(self, chosen: Tensor, other: Evaluation) -> Evaluation:
        """This evaluation for the chosen images, (B,) bool, the other one for the rest."""
        each, images = chosen, chosen.view(-1, 1, 1, 1)
        return Evaluation(
            torch.where(images, self.point, other.point),
            torch.where(images, self.gradient, other.gradient),
            torch.where(each, self.control, other.control),
            torch.where(each, self.unfooled, other.unfooled),
        )

    def wins_more(self, other: Evaluation) -> Tensor:
        """Images with fewer unfooled pixels here than there, or as many and a higher control loss, (B,) bool."""
        return (self.unfooled < other.unfooled) | (self.unfooled == other.unfooled) & (self.control > other.control)


class APGD(IterativeAttack):
    """APGD: momentum, a step size that halves where it stops paying, and the best iterate instead of the last.

    Sources: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020, arXiv 2003.01690; for segmentation, and with shrinking balls, F. Croce, N. D.
    Singh, M. Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models" (SEA), ECCV
    2024, arXiv 2306.12941.

        z       = project(x_t + s * direction(gradient))
        x_(t+1) = project(x_t + 0.75 (z - x_t) + 0.25 (x_t - x_(t-1))),          the first step is z itself

    s begins at 2 eps. At checkpoints (after 0.22 N gradients, then in periods that shrink by 0.03 N down to
    0.06 N) an image's s is halved and its best point taken up again, if fewer than 0.75 of the period's steps raised
    its control loss, or if since the last checkpoint neither its s nor its best control loss changed.

    The control loss is the cross-entropy without weights, summed over the image's labelled pixels, whatever the
    objective: masks and weights enter the gradient only (SEA). Returned is for each image the iterate with the lowest
    pixel accuracy, of several the one with the higher control loss. In a targeted attack the control loss is turned
    round, and accuracy is the share of pixels that have not taken the wanted class.

    SEA's reduction of the radius: `shares` of the steps are spent in balls of `radii` * eps, each an APGD of its own
    (N its part, s from 2 radii * eps), begun at the last one's result brought into the new ball. What is returned was
    found in the last ball, eps.

    Departs from the released codes: `steps` counts gradients, the one at the start included (there N + 1). As the
    papers write, and not as the codes compare, "fewer than 0.75" excludes equality, the first checkpoint knows the
    second rule too, and after a restart the next step is compared with the best point. The objective's clock
    (`SegPGD`) runs once over all balls, not anew in each.

    There are no input or gradient transforms: the step sizes need to see the model at the iterate itself. Use
    `IterativeAttack` for those.

    Args:
        objective: what to maximise; SEA's are `MaskedCrossEntropy`, `BalancedMaskedCrossEntropy` and `JensenShannon`.
        norm: the budget, L-inf or L2.
        steps: number of gradients in all, 1 or more; SEA's is 300.
        random_start: start at a random point of the first ball, as in the papers, instead of the clean image.
        radii: radii of the balls, in eps, above 0; the last is 1. `[1.0]` with shares `[1.0]` is APGD in one ball.
        shares: their parts of the steps, above 0, of sum 1. A ball whose part is no whole step is left out.
        name: name in tables and folders.

    Raises:
        ValueError: as `IterativeAttack`; or radii and shares that do not fit.

    Example:
        >>> from lightning_attack.attacks.norms import Linf
        >>> from lightning_attack.attacks.objectives.base import CrossEntropy
        >>> attack = APGD(CrossEntropy(), Linf(0.25), steps=10, random_start=False)
        >>> attack.ends()                                             # 3 steps in 2 eps, 3 in 1.5 eps, 4 in eps
        [3, 6, 10]
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)              # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> images, labels = torch.full((1, 3, 1, 2), 0.5), torch.tensor([[[0, 1]]])
        >>> attack(model, images, labels)[0, 0]
        tensor([[0.2500, 0.7500]])
    """

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 300,
        random_start: bool = True,
        radii: Sequence[float] = (2.0, 1.5, 1.0),
        shares: Sequence[float] = (0.3, 0.3, 0.4),
        name: str = "apgd",
    ) -> None:
        super().__init__(objective, norm, steps, 2 * norm.eps, random_start, name=name)
        if not radii or not all(0 < radius < float("inf") for radius in radii) or radii[-1] != 1:
            raise ValueError(f"radii={list(radii)}: must be numbers above 0 of which the last is 1, such as 2, 1.5, 1")
        if len(shares) != len(radii) or not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"shares={list(shares)}: must be {len(radii)} numbers above 0 of sum 1, one for each radius"
            )
        self.radii, self.shares = list(radii), list(shares)

    def ends(self) -> list[int]:
        """The numbers of steps after which the balls end."""
        # Room for the rounding of sums such as 0.3 + 0.3; the last ball always has at least one step.
        *early, _ = accumulate(self.shares)
        return [*(int(share * self.steps + 1e-6) for share in early), self.steps]

    def perturb(self, problem: Problem) -> Tensor:
        gradient = LossGradient(problem, self.objective, [], self.steps, remember=True)
        point, done = None, 0
        for radius, end in zip(self.radii, self.ends(), strict=True):
            if end == done:
                continue
            ball = copy(self.norm)
            ball.eps = self.norm.eps * radius
            if point is None:
                point = ball.start(problem.images, problem.draws) if self.random_start else self.start(problem)
            point = self._climb(problem, gradient, ball, _into(ball, problem, point), range(done, end))
            done = end
        assert point is not None
        return point

    def _climb(self, problem: Problem, gradient: LossGradient, ball: Norm, x: Tensor, steps: range) -> Tensor:
        """APGD in one ball, from x on; the point with the lowest accuracy."""
        checks = checkpoints(len(steps))
        here = before = best = winner = self._evaluate(problem, gradient, x, steps[0])
        # The control loss of half images is float32; the points stay what the images are.
        size = torch.full_like(here.control, 2 * ball.eps, dtype=x.dtype)
        halved = torch.zeros_like(here.control, dtype=torch.bool)
        rises, at_check = torch.zeros_like(here.control), best.control
        self._show(problem, ball, steps[0], winner)
        for number in range(1, len(steps)):
            aim = _into(ball, problem, here.point + size.view(-1, 1, 1, 1) * ball.direction(here.gradient))
            if number > 1:
                aim = here.point + 0.75 * (aim - here.point) + 0.25 * (here.point - before.point)
                aim = _into(ball, problem, aim)
            before, here = here, self._evaluate(problem, gradient, aim, steps[number])
            rises = rises + (here.control > before.control)
            best = here.where(here.control > best.control, best)
            winner = here.where(here.wins_more(winner), winner)
            self._show(problem, ball, steps[number], winner)
            if number in checks:
                halved = (rises < 0.75 * checks[number]) | ~halved & (best.control <= at_check)
                size = torch.where(halved, size / 2, size)
                here = best.where(halved, here)
                rises, at_check = torch.zeros_like(rises), best.control
        return winner.point

    def _show(self, problem: Problem, ball: Norm, step: int, winner: Evaluation) -> None:
        """The best point so far; of one in a larger ball what the budget allows."""
        if problem.watch is not None:
            inside = ball.eps <= self.norm.eps
            problem.show(step, winner.point if inside else _into(self.norm, problem, winner.point))

    def _evaluate(self, problem: Problem, gradient: LossGradient, x: Tensor, step: int) -> Evaluation:
        gradient.begin(step)
        direction = problem.inside_only(gradient(x))
        seen = gradient.seen
        if seen is None or len(loss_members(problem.model)) > 1:
            # Of an ensemble by loss, `seen` is one member; the ensemble's own prediction takes another pass.
            with torch.no_grad():
                seen = problem.predict(x)
        control = seen.cross_entropy.flatten(1).sum(1)
        problem.log(step, gradient.figures)
        return Evaluation(x, direction, -control if problem.targeted else control, seen.unfooled.flatten(1).sum(1))


def checkpoints(steps: int) -> dict[int, int]:
    """The steps, from 0, after which the step size is checked, and the length of the period that ends there.

    Args:
        steps: N, their number.

    Example:
        >>> checkpoints(100)
        {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    period, least, less = (max(int(share * steps + 1e-6), 1) for share in (0.22, 0.06, 0.03))
    found, at = {}, period
    while at < steps:
        found[at] = period
        period = max(period - less, least)
        at += period
    return found


def _into(ball: Norm, problem: Problem, x: Tensor) -> Tensor:
    """The point nearest to x in the ball, in [0, 1] and in the region."""
    return problem.inside((problem.images + ball.project(x - problem.images)).clamp(0, 1))

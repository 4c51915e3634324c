"""`AdaEA`: an ensemble with weights by how well each member's step transfers, where the members agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_attack.attacks.base import Model, Problem
from lightning_attack.attacks.gradient_transforms.base import GradientTransform
from lightning_attack.attacks.input_transforms.base import InputTransform
from lightning_attack.attacks.loops.gradient import LossGradient, StepGradient
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.members import MakeGradient, MembersGradient, Weighted
from lightning_attack.attacks.loops.schedule import StepSchedule
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.objectives.base import Objective
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.common.pixels import Pixels

_SMALLEST_LOSS = 1e-12


class AdaEA(IterativeAttack):
    """AdaEA: weigh the members by how far their own steps fool the others, and drop pixels on which they disagree.

    Source: B. Chen, J.-L. Yin, S. Chen, B.-H. Chen, X. Liu, "An Adaptive Model Ensemble Adversarial Attack for Boosting
    Adversarial Transferability", ICCV 2023, arXiv 2308.02897; with `Momentum` its MI variant.

        g_k = gradient of member k at x,     x_k = one step along g_k
        modulation:  w_k = softmax over k of  beta * sum over i != k of  L_i(x_k) / L_i(x_i)
        g = gradient of the ensemble with the weights w at x
        filter:      g = 0 at pixels where the mean over pairs i < k of cos(g_i, g_k), over the colours, is < threshold

    L is the cross-entropy of the labelled pixels, w of each image. In a targeted attack, where a good step makes L
    fall, the ratio is turned over. The ensemble averages logits or softmax, whatever `by` says; by loss, g is the
    weighted sum of the g_k. The ensemble's own weights count for what is logged only. The released code leaves the last
    member out of the filter, and its MI variant sets w in the first step only; here w is of each step, as in a common
    port.

    Each step costs a gradient of each member, K^2 forward passes for K members, and a gradient of the ensemble, which
    is another one of each member, unless it is by loss.

    Args:
        objective: what to maximise; the paper's is `CrossEntropy`.
        norm: the budget.
        steps: number of steps, 1 or more; the paper's is 20.
        step_size: length of a step, also of those to the x_k, above 0.
        beta: of the modulation, 0 or more; the paper's is 10, 0 gives all members the same weight.
        threshold: of the filter, from -1 to 1; the paper's is -0.3, -1 filters nothing.
        random_start: start at a random point of the ball; the released code adds normal noise of 0.001.
        input_transforms: as in `IterativeAttack`; L is without them.
        gradient_transforms: as in `IterativeAttack`.
        name: name in tables and folders.
        step_schedule: as in `IterativeAttack`.
        finish: as in `IterativeAttack`.
        source_transforms: of each member, where gradients are taken.

    Raises:
        ValueError: as `IterativeAttack`; beta or threshold is out of range, or at a call a model that is no ensemble.

    Example:
        >>> first, second = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]], [[[1.0, 0.0]], [[0.0, 2.0]]]]).split(1)
        >>> AdaEA.agreement([first, second])                         # alike at one pixel, at right angles at the other
        tensor([[[[1., 0.]]]])
    """

    needs_members = True

    def __init__(
        self,
        objective: Objective,
        norm: Norm,
        steps: int = 20,
        step_size: Pixels = 0.01,
        beta: float = 10.0,
        threshold: float = -0.3,
        random_start: bool = False,
        input_transforms: Sequence[InputTransform] | None = None,
        gradient_transforms: Sequence[GradientTransform] | None = None,
        name: str = "adaea",
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
        if not 0 <= beta < float("inf"):  # NaN too
            raise ValueError(f"beta={beta}: must be a number, 0 or more; the paper's is 10")
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be between -1 and 1; the paper's is -0.3")
        self.beta, self.threshold = beta, threshold

    def estimate(self, problem: Problem) -> StepGradient:
        def step(x: Tensor, gradient: Tensor) -> Tensor:
            gradient = problem.inside_only(gradient)
            return problem.inside(self.norm.step(x, problem.images, gradient, self.step_size))

        return _Adaptive(problem, self.gradient, step, self.beta, self.threshold)

    @staticmethod
    def agreement(gradients: Sequence[Tensor]) -> Tensor:
        """Mean cosine of the members' gradients at each pixel, (B, 1, H, W); of a single member 1."""
        pairs = [torch.cosine_similarity(one, other, dim=1) for one, other in combinations(gradients, 2)]
        mean = torch.stack(pairs).mean(0) if pairs else torch.ones_like(gradients[0][:, 0])
        return mean[:, None].clamp(-1, 1)  # rounding may leave the range


class _Adaptive(MembersGradient):
    """The filtered gradient of the ensemble with adaptive weights."""

    def __init__(
        self,
        problem: Problem,
        make: MakeGradient,
        step: Callable[[Tensor, Tensor], Tensor],
        beta: float,
        threshold: float,
    ) -> None:
        super().__init__(problem, make)
        self._step, self._beta, self._threshold = step, beta, threshold
        source: Any = problem.model
        self._ensemble: Weighted | None = None
        if source.by != "loss":
            self._ensemble = Weighted(self.members, source.by)
            # Until the first step has found weights, as for clean predictions: the ensemble's own.
            self._ensemble.shares = torch.tensor(self.weights, device=problem.images.device)[:, None]
            self._whole: LossGradient = make(replace(problem, model=self._ensemble, clean_logits=None))

    def begin(self, step: int) -> None:
        super().begin(step)
        if self._ensemble is not None:
            self._whole.begin(step)

    def forget(self) -> None:
        super().forget()
        if self._ensemble is not None:
            self._whole.forget()

    def __call__(self, x: Tensor) -> Tensor:
        gradients = [loss(x) for loss in self.losses]
        weights = self._modulation(x, gradients)
        if self._ensemble is None:
            total = torch.stack([g * w.view(-1, 1, 1, 1) for g, w in zip(gradients, weights, strict=True)]).sum(0)
        else:
            self._ensemble.shares = weights
            total = self._whole(x)
        return total * (AdaEA.agreement(gradients) >= self._threshold)

    def _modulation(self, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
        """Weight of each member for each image, (K, B)."""
        points = [self._step(x, gradient) for gradient in gradients]
        losses = torch.stack([torch.stack([self._loss(member, point) for point in points]) for member in self.members])
        own = losses.diagonal().mT[:, None]
        above, below = (own, losses) if self.problem.targeted else (losses, own)
        ratios = above / below.clamp_min(_SMALLEST_LOSS)
        others = ~torch.eye(len(points), dtype=torch.bool, device=x.device)[:, :, None]
        return (self._beta * torch.where(others, ratios, 0).sum(0)).softmax(0).to(x.dtype)

    @torch.no_grad()
    def _loss(self, member: Model, point: Tensor) -> Tensor:
        """Cross-entropy of each image, (B,), summed over its labelled pixels: of ratios the number falls out."""
        prediction = Prediction(member(point), self.problem.labels, self.problem.targeted)
        # In the type of losses: the sum over a photo's pixels is more than a half float can hold.
        return prediction.cross_entropy.flatten(1).sum(1)

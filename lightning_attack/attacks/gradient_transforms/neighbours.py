"""Gradient transforms that sample: relevance, random walks, anticipated steps and reverse perturbations.

As in `sampling`, points may lie outside [0, 1] and the ball, and `radius` is in `eps`, see `Budget`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attack.attacks.gradient_transforms.base import (
    Budget,
    GradientFunction,
    GradientTransform,
    check_decay,
    unit_mean,
)
from lightning_attack.attacks.gradient_transforms.sampling import check_radius, check_samples, noise
from lightning_attack.attacks.norms import unit


class GradientRelevance(GradientTransform):
    """GRA: mix the gradient with the mean of those of random neighbours, by how alike the two are.

    Source: H. Zhu, Y. Ren, X. Sui, L. Yang, W. Jiang, "Boosting Adversarial Transferability via Gradient Relevance
    Attack", ICCV 2023; with `Momentum` and `DecayIndicator` the GRA attack.

        g = gradient(x),     n = mean over samples of gradient(x + U(-radius * eps, radius * eps)),     s = cos(g, n)
        returned: s * g + (1 - s) * n            s is of each image

    Each step costs `samples` + 1 gradients.

    Args:
        samples: neighbours per step, 0 or more; the paper's is 20, 0 does nothing.
        radius: reach of the neighbours in each value, in eps, 0 or more; the paper's is 3.5.

    Raises:
        ValueError: samples or radius is below 0, or radius is not finite.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> slopes = iter([torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[0.0, 5.0]]]])])   # here, at the neighbour
        >>> ascent = GradientRelevance(samples=1)(lambda x: next(slopes), Budget(0, 0, 1, Draws([0])))
        >>> ascent(torch.zeros(1, 1, 1, 2))                              # s = 20 / (5 * 5); 0.8 * 3, 0.8 * 4 + 0.2 * 5
        tensor([[[[2.4000, 4.2000]]]])
    """

    def __init__(self, samples: int = 20, radius: float = 3.5) -> None:
        self.samples, self.radius = check_samples(samples, 0), check_radius(radius)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        def gra(x: Tensor) -> Tensor:
            here = gradient(x)
            if not self.samples:
                return here
            around = torch.zeros_like(here)
            for _ in range(self.samples):
                around = around + gradient(x + noise("gradient relevance", x, budget, self.radius))
            around = around / self.samples
            likeness = cosine(here, around)
            return likeness * here + (1 - likeness) * around

        return gra


class RandomWalk(GradientTransform):
    """Mean of the gradients along a random walk from the point: the sampling of SMI-FGRM.

    Source: X. Han, A. Liu, C. Yao, Y. Fan, K. He, "Sampling-based Fast Gradient Rescaling Method for Highly
    Transferable Adversarial Attacks", 2023, arXiv 2307.02828; with `Momentum` and `Rescale` the SMI-FGRM attack.

        x_0 = x,     x_i = x_{i-1} + U(-radius * eps, radius * eps),     returned: mean over i = 0 .. samples of g(x_i)

    Each step costs `samples` + 1 gradients.

    Args:
        samples: steps of the walk, 0 or more; the paper's is 12, 0 does nothing.
        radius: reach of each step of the walk in each value, in eps, 0 or more; the paper's is 1.5.

    Raises:
        ValueError: samples or radius is below 0, or radius is not finite.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> seen = []
        >>> ascent = RandomWalk(samples=2, radius=1.0)(lambda x: seen.append(x) or x, Budget(0.5, 0, 1, Draws([0])))
        >>> mean = ascent(torch.zeros(1, 1, 1, 1))
        >>> len(seen), bool((mean - (seen[1] + seen[2]) / 3).abs() < 1e-6), bool((seen[2] - seen[1]).abs() <= 0.5)
        (3, True, True)
    """

    def __init__(self, samples: int = 12, radius: float = 1.5) -> None:
        self.samples, self.radius = check_samples(samples, 0), check_radius(radius)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        def walk(x: Tensor) -> Tensor:
            total = gradient(x)
            for _ in range(self.samples):
                x = x + noise("random walk", x, budget, self.radius)
                total = total + gradient(x)
            return total / (self.samples + 1)

        return walk


class EnhancedEuler(GradientTransform):
    """IE: momentum of the mean of two gradients, at the point and where a step along the first would lead.

    Source: A. Peng, Z. Lin, H. Zeng, W. Yu, X. Kang, "Boosting Transferability of Adversarial Example via an Enhanced
    Euler's Method", ICASSP 2023, as a common port has it: IE-FGSM.

        g1 = unit(gradient(x)),     g2 = unit(gradient(x + step_size * g1)),     m <- decay * m + (g1 + g2) / 2

    with unit(g) = g / mean|g|. Each step costs 2 gradients.

    Args:
        decay: share of the old momentum that stays, 0 or more; the port's is 1, 0 is the mean alone.

    Raises:
        ValueError: decay is below 0.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> ascent = EnhancedEuler()(lambda x: x, Budget(1.0, 1.0, 2, Draws([0])))
        >>> x = torch.tensor([[[[1.0, 3.0]]]])
        >>> ascent(x)                                     # g1 = (0.5, 1.5), which is where (1.5, 4.5) points, too
        tensor([[[[0.5000, 1.5000]]]])
    """

    accumulates = True
    samples = 2

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = check_decay(decay)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        momentum: Tensor | float = 0.0

        def euler(x: Tensor) -> Tensor:
            nonlocal momentum
            here = unit_mean(gradient(x))
            ahead = unit_mean(gradient(x + budget.step_size * here))
            momentum = self.decay * momentum + (here + ahead) / 2
            return momentum

        return euler


class DirectionTuning(GradientTransform):
    """DTA: momentum of the mean gradient along a few small steps that are taken ahead of each step.

    Source: X. Yang, J. Lin, H. Zhang, X. Yang, P. Zhao, "Improving the Transferability of Adversarial Examples via
    Direction Tuning", 2023, arXiv 2303.15109; here as in the released code.

        y = x,  p = m;   K times:  p <- inner_decay * p + unit(gradient(y + decay * step_size * p)),
                                   y <- y + step_size / K * sign(p)
        m <- decay * m + the mean of the K vectors p

    with unit(g) = g / mean|g|, K = `inner_steps`, m = 0 at first. `inner_steps` of 1 is `Nesterov`. The released code
    also clips y to the ball, from which it is at most one step away. Each step costs K gradients.

    Args:
        inner_steps: K, 1 or more; the paper's is 10.
        decay: share of the old momentum that stays, 0 or more; the paper's is 1.
        inner_decay: share of the old p that stays, 0 or more; the released code's is 0.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> ascent = DirectionTuning(inner_steps=2)(lambda x: x**2, Budget(1.0, 1.0, 2, Draws([0])))
        >>> x = torch.tensor([[[[1.0, 3.0]]]])     # unit gradient there (0.2, 1.8), then at (1.7, 5.3) (0.187, 1.813)
        >>> [round(value, 3) for value in ascent(x).flatten().tolist()]
        [0.193, 1.807]
    """

    accumulates = True

    def __init__(self, inner_steps: int = 10, decay: float = 1.0, inner_decay: float = 0.0) -> None:
        if inner_steps < 1:
            raise ValueError(f"inner_steps={inner_steps}: must be 1 or more; the paper's is 10")
        if not 0 <= inner_decay < math.inf:  # NaN too
            raise ValueError(f"inner_decay={inner_decay}: must be a number, 0 or more")
        self.inner_steps, self.decay, self.inner_decay = inner_steps, check_decay(decay), inner_decay
        self.samples = inner_steps if inner_steps > 1 else 0

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        momentum: Tensor | float = 0.0

        def dta(x: Tensor) -> Tensor:
            nonlocal momentum
            here, ahead = x, momentum
            total = torch.zeros_like(x)
            for _ in range(self.inner_steps):
                slope = unit_mean(gradient(here + self.decay * budget.step_size * ahead))
                ahead = self.inner_decay * ahead + slope
                total = total + ahead
                here = here + budget.step_size / self.inner_steps * ahead.sign()
            momentum = self.decay * momentum + total / self.inner_steps
            return momentum

        return dta


class ReversePerturbation(GradientTransform):
    """RAP: take the gradient where a perturbation against the attack has made its loss small.

    Source: Z. Qin, Y. Fan, Y. Liu, L. Shen, Y. Zhang, J. Wang, B. Wu, "Boosting the Transferability of Adversarial
    Attacks with Reverse Adversarial Perturbation", NeurIPS 2022, arXiv 2210.05968.

        n = U(-radius * eps, radius * eps);   inner_steps times:  n <- clip(n - inner_size * sign(gradient(x + n)))
        returned: gradient(x + n)                              the clip is to radius * eps and, with x, to [0, 1]

    With `late_start` the first steps are without n, as in the paper's RAP-LS. From then on each step costs
    `inner_steps` + 1 gradients.

    Args:
        inner_steps: 0 or more; the paper's is 8.
        radius: of n, in eps, 0 or more; the paper's is 1.
        inner_size: length of an inner step, in eps, 0 or more; the paper's is 2/16.
        late_start: share of the steps that are without n, in [0, 1]; the paper's is 100 of 400.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> rap = ReversePerturbation(inner_steps=3, radius=0.5, inner_size=0.5, late_start=0.5)
        >>> first, second = (Budget(0.5, 0.1, 2, Draws([0]), step=step) for step in (0, 1))
        >>> x = torch.full((1, 1, 1, 1), 0.5)                              # where x**2 / 2 is to grow
        >>> rap(lambda x: x, first)(x), rap(lambda x: x, second)(x)        # the second at 0.5 - 0.5 * 0.5
        (tensor([[[[0.5000]]]]), tensor([[[[0.2500]]]]))
    """

    def __init__(
        self, inner_steps: int = 8, radius: float = 1.0, inner_size: float = 0.125, late_start: float = 0.25
    ) -> None:
        if inner_steps < 0:
            raise ValueError(f"inner_steps={inner_steps}: must be 0 or more; the paper's is 8")
        if not 0 <= inner_size < math.inf:  # NaN too
            raise ValueError(f"inner_size={inner_size}: must be a finite number, 0 or more")
        if not 0 <= late_start <= 1:
            raise ValueError(f"late_start={late_start}: must be between 0 and 1")
        self.inner_steps, self.radius, self.inner_size = inner_steps, check_radius(radius), inner_size
        self.late_start, self.samples = late_start, inner_steps + 1

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        reach = self.radius * budget.eps

        def rap(x: Tensor) -> Tensor:
            if budget.step + 1 <= self.late_start * budget.steps + 1e-6:  # 0.29 * 100 is below 29
                return gradient(x)
            against = noise("reverse perturbation", x, budget, self.radius)
            for _ in range(self.inner_steps):
                against = against - self.inner_size * budget.eps * gradient(x + against).sign()
                against = (x + against.clamp(-reach, reach)).clamp(0, 1) - x
            return gradient(x + against)

        return rap


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between each image's two gradients, (B, 1, 1, 1); 0 if one of them is zero."""
    return (unit(first) * unit(second)).sum(dim=(1, 2, 3), keepdim=True)

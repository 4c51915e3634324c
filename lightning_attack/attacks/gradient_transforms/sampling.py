"""Gradient transforms that sample: the gradient at a point from gradients at several points near it.

In front of an accumulator they are the attacks of their papers, such as `[VarianceTuning(), Momentum()]` for VMI-FGSM.
Neighbours may lie outside [0, 1] and the ball, as in the papers' code.

`radius` is in `eps` or `step_size`, as sizes of one value, see `Budget`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attack.attacks.gradient_transforms.base import Budget, GradientFunction, GradientTransform, unit_mean


class VarianceTuning(GradientTransform):
    """VT: add the mean difference between the gradients around the last iterate and the gradient of that step.

    Source: X. Wang, K. He, "Enhancing the Transferability of Adversarial Attacks through Variance Tuning", CVPR 2021,
    arXiv 2103.15571; with `Momentum` VMI-FGSM, with `Nesterov` VNI-FGSM.

        returned: g + v,     then v <- mean over samples of gradient(x_t + U(-radius * eps, radius * eps)) - g

    g is the gradient at the given point, v = 0 at first. The neighbours lie around the iterate x_t even where g is
    taken at a point ahead, as in the released code of VNI and in torchattacks; TransferAttack takes them around the
    point ahead. Each step costs `samples` + 1 gradients.

    Args:
        samples: neighbours per step, 0 or more; the paper's is 20, 0 does nothing.
        radius: reach of the neighbours in each value, in eps, 0 or more; the paper's is 1.5.

    Raises:
        ValueError: samples or radius is below 0, or radius is not finite.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> slopes = iter([1.0, 4.0, 6.0, 1.0, 0.0, 0.0])         # at the iterate, at two neighbours, and again
        >>> ascent = VarianceTuning(samples=2)(lambda x: torch.full_like(x, next(slopes)), Budget(0, 0, 2, Draws([0])))
        >>> ascent(torch.zeros(1, 1, 1, 1)), ascent(torch.zeros(1, 1, 1, 1))       # 1 + 0, 1 + ((4 + 6) / 2 - 1)
        (tensor([[[[1.]]]]), tensor([[[[5.]]]]))
    """

    remembers = True

    def __init__(self, samples: int = 20, radius: float = 1.5) -> None:
        self.samples, self.radius = check_samples(samples, 0), check_radius(radius)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        variance: Tensor | float = 0.0

        def vt(x: Tensor) -> Tensor:
            nonlocal variance
            here = gradient(x)
            tuned = here + variance
            if self.samples:
                centre = x if budget.point is None else budget.point
                around = torch.zeros_like(here)
                for _ in range(self.samples):
                    around = around + gradient(centre + noise("variance tuning", x, budget, self.radius))
                variance = around / self.samples - here
            return tuned

        return vt


class EnhancedSampling(GradientTransform):
    """EMI: mean of the gradients along a line through the point, in the direction of the last mean.

    Source: X. Wang, J. Lin, H. Hu, J. Wang, K. He, "Boosting Adversarial Transferability through Enhanced Momentum",
    BMVC 2021, arXiv 2103.10609; with `Momentum` EMI-FGSM.

        G = mean over i of gradient(x + c_i * step_size * p),     p <- G / mean|G|
        c_i = `samples` numbers evenly from -radius to radius

    p = 0 at first, so the first step takes `samples` gradients at x itself, which differ with random input transforms
    only. The unit of c_i (step_size), the even spacing and both defaults are those of the released code;
    TransferAttack also offers uniform and Gaussian c_i, which are not here. The points are evaluated from the
    middle outwards, not from end to end.

    Args:
        samples: points per step, 2 or more (both ends of the line); the paper's is 11.
        radius: half the length of the line in steps, 0 or more; the paper's is 7.

    Raises:
        ValueError: samples is below 2, radius below 0 or not finite.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> ascent = EnhancedSampling(samples=3, radius=2.0)(lambda x: x**2, Budget(1.0, 0.25, 2, Draws([0])))
        >>> ascent(torch.ones(1, 1, 1, 1)), ascent(torch.ones(1, 1, 1, 1))          # 1, (0.5^2 + 1^2 + 1.5^2) / 3
        (tensor([[[[1.]]]]), tensor([[[[1.1667]]]]))
    """

    remembers = True

    def __init__(self, samples: int = 11, radius: float = 7.0) -> None:
        self.samples, self.radius = check_samples(samples, 2), check_radius(radius)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        last = self.samples - 1
        offsets = [self.radius * budget.step_size * (2 * i - last) / last for i in range(self.samples)]
        offsets.sort(key=abs)  # an odd number begins at x: logs and stages use a step's first forward pass
        direction: Tensor | float = 0.0

        def emi(x: Tensor) -> Tensor:
            nonlocal direction
            total = torch.zeros_like(x)
            for offset in offsets:
                total = total + gradient(x + offset * direction)
            mean = total / self.samples
            direction = unit_mean(mean)
            return mean

        return emi


class PenalizedGradientNorm(GradientTransform):
    """PGN: climb to where the loss is flat, by gradients taken one step downhill of random neighbours.

    Source: Z. Ge, H. Liu, X. Wang, F. Shang, Y. Liu, "Boosting Adversarial Transferability by Achieving Flat Local
    Maxima", NeurIPS 2023, arXiv 2306.05225; with `Momentum` the PGN attack.

        x' = x + U(-radius * eps, radius * eps),     g1 = gradient(x')
        x* = x' - step_size * g1 / mean|g1|,         g2 = gradient(x*)
        returned: mean over samples of (1 - balance) * g1 + balance * g2

    The difference of g2 and g1 stands for the gradient of -|g1|, which is what penalises its norm. Dividing by the mean
    (not the sum) of |g1| and the minus sign follow the released code. Each step costs 2 * `samples` gradients.

    Args:
        samples: neighbours per step, 1 or more; the paper's is 20.
        radius: reach of the neighbours in each value, in eps, 0 or more; the paper's is 3.
        balance: share of g2, from 0 to 1; the paper's is 0.5. 0 is the mean of the neighbours' gradients.

    Raises:
        ValueError: samples is below 1, radius below 0 or not finite, balance outside [0, 1].

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> pgn = PenalizedGradientNorm(samples=1, radius=0.0)
        >>> ascent = pgn(lambda x: x**2, Budget(1.0, 0.5, 1, Draws([0])))
        >>> ascent(torch.full((1, 1, 1, 1), 2.0))                     # g1 = 2^2, x* = 2 - 0.5, g2 = 1.5^2
        tensor([[[[3.1250]]]])
    """

    def __init__(self, samples: int = 20, radius: float = 3.0, balance: float = 0.5) -> None:
        if not 0 <= balance <= 1:  # NaN too
            raise ValueError(f"balance={balance}: must be between 0 and 1")
        self.samples, self.radius, self.balance = check_samples(samples, 1), check_radius(radius), balance

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        def pgn(x: Tensor) -> Tensor:
            total = torch.zeros_like(x)
            for _ in range(self.samples):
                near = x + noise("penalized gradient norm", x, budget, self.radius)
                uphill = gradient(near)
                downhill = gradient(near - budget.step_size * unit_mean(uphill))
                total = total + ((1 - self.balance) * uphill + self.balance * downhill)
            return total / self.samples

        return pgn


class ExpectedFlatness(GradientTransform):
    """MEF: mean of the gradients at random neighbours, each moved by what its own gradients said before.

    Source: "Boosting Adversarial Transferability with Low-Cost Optimization via Maximin Expected Flatness", 2024,
    arXiv 2405.16181; with `Momentum(0.5)` the MEF attack.

        x_i = x + U(-radius * eps, radius * eps) + push * eps * G_i,     g_i = gradient(x_i)
        G_i <- g_i / mean|g_i| - inner_decay * G_i                       G_i = 0 at first
        returned: mean over i of g_i

    One gradient for each neighbour, where PGN needs two. The sign of push * G_i is that of the released code; the paper
    speaks of the inverse direction. Each step costs `samples` gradients.

    Args:
        samples: neighbours, 1 or more; the paper's is 20.
        radius: reach of the neighbours in each value, in eps, 0 or more; the paper's is 2.
        push: how far G_i moves a neighbour, in eps, a finite number; the paper's is 0.15. 0 moves none.
        inner_decay: share of the old G_i that is taken away, 0 or more; the paper's is 0.9.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> mef = ExpectedFlatness(samples=1, radius=0.0, push=0.5, inner_decay=1.0)
        >>> ascent = mef(lambda x: x, Budget(1.0, 0.5, 2, Draws([0])))
        >>> x = torch.full((1, 1, 1, 1), 2.0)
        >>> ascent(x), ascent(x), ascent(x)                  # G = 0, then 1, then 1 - 1
        (tensor([[[[2.]]]]), tensor([[[[2.5000]]]]), tensor([[[[2.]]]]))
    """

    remembers = True

    def __init__(self, samples: int = 20, radius: float = 2.0, push: float = 0.15, inner_decay: float = 0.9) -> None:
        if not math.isfinite(push):
            raise ValueError(f"push={push}: must be a finite number")
        if not 0 <= inner_decay < math.inf:  # NaN too
            raise ValueError(f"inner_decay={inner_decay}: must be a number, 0 or more; the paper's is 0.9")
        self.samples, self.radius = check_samples(samples, 1), check_radius(radius)
        self.push, self.inner_decay = push, inner_decay

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        pushes: list[Tensor | float] = [0.0] * self.samples

        def mef(x: Tensor) -> Tensor:
            total = torch.zeros_like(x)
            for i, before in enumerate(pushes):
                here = gradient(
                    x + noise("expected flatness", x, budget, self.radius) + self.push * budget.eps * before
                )
                pushes[i] = unit_mean(here) - self.inner_decay * before
                total = total + here
            return total / self.samples

        return mef


def noise(purpose: str, x: Tensor, budget: Budget, radius: float) -> Tensor:
    """Uniform numbers of x's shape and type, radius * eps to each side."""
    reach = radius * budget.eps
    return budget.draws.uniform(purpose, x.shape[1:], -reach, reach).to(x.dtype)


def check_samples(samples: int, least: int) -> int:
    """The number of samples, if it is `least` or more; else `ValueError`."""
    if samples < least:
        raise ValueError(f"samples={samples}: must be {least} or more")
    return samples


def check_radius(radius: float) -> float:
    """The radius, if it is a finite number, 0 or more; else `ValueError`."""
    if not 0 <= radius < math.inf:  # NaN too
        raise ValueError(f"radius={radius}: must be a finite number, 0 or more")
    return radius

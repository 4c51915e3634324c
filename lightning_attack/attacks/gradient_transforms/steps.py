"""Gradient transforms that say how far each value moves in a step, in place of the sign that makes all move alike.

They look at the direction that is taken, so they come last. In L-inf they set `Budget.scale`. In L2, where steps follow
the direction and not its sign, those that stand for the sign reshape the direction itself.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from lightning_attack.attacks.gradient_transforms.base import Budget, GradientFunction, GradientTransform
from lightning_attack.attacks.norms import unit


class DecayIndicator(GradientTransform):
    """Shorter steps for values whose direction has turned: the second half of GRA.

    Source: H. Zhu, Y. Ren, X. Sui, L. Yang, W. Jiang, "Boosting Adversarial Transferability via Gradient Relevance
    Attack", ICCV 2023.

        M <- M  where the direction has the sign of the step before, eta * M elsewhere;     step M * step_size

    M is 1 in the first step (`Budget.step` 0). Each value has its own M, which never grows.

    Args:
        eta: what a change of sign leaves of a step, in [0, 1]; the paper's is 0.94, 1 does nothing.

    Raises:
        ValueError: eta is out of range.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> budget = Budget(1.0, 0.1, 3, Draws([0]))
        >>> ascent = DecayIndicator(eta=0.5)(lambda x: x, budget)
        >>> for step, x in enumerate(([1.0, 1.0], [2.0, -1.0], [-1.0, 1.0])):
        ...     budget.step, budget.scale = step, 1.0
        ...     _ = ascent(torch.tensor(x).view(1, 1, 1, 2))
        ...     print(budget.scale.flatten().tolist())
        [1.0, 1.0]
        [1.0, 0.5]
        [0.5, 0.25]
    """

    remembers = True
    scales = True

    def __init__(self, eta: float = 0.94) -> None:
        if not 0 <= eta <= 1:  # NaN too
            raise ValueError(f"eta={eta}: must be between 0 and 1; the paper's is 0.94")
        self.eta = eta

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        last: Tensor | None = None
        shares: Tensor | None = None

        def indicate(x: Tensor) -> Tensor:
            nonlocal last, shares
            direction = gradient(x)
            sign = direction.sign()
            if last is None or shares is None or budget.step == 0:
                shares = torch.ones_like(direction)
            else:
                shares = torch.where(sign == last, shares, self.eta * shares)
            last = sign
            budget.scale = budget.scale * shares
            return direction

        return indicate


class SignReplacement(GradientTransform):
    """Base of those that step along sign(g) * w with a weight w of 0 or more for each value, about 1 on average."""

    scales = True

    @abstractmethod
    def weights(self, direction: Tensor) -> Tensor:
        """The weight w of each value of the direction, (B, 3, H, W), where it is not 0."""

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        def replace(x: Tensor) -> Tensor:
            direction = gradient(x)
            weights = self.weights(direction)
            if not budget.signs:
                return direction.sign() * weights
            budget.scale = budget.scale * weights
            return direction

        return replace


class Staircase(SignReplacement):
    """Longer steps for values with larger gradients, in equal stairs: the staircase sign method.

    Source: Q. Zhang, X. Zhu, J. Song, L. Gao, H. T. Shen, "Staircase Sign Method for Boosting Adversarial Attacks",
    2021, arXiv 2104.09722.

        the values of an image by the size of their gradient in `stairs` equal parts;   w = (2 k - 1) / stairs in part k

    so that w goes from 1 / stairs to almost 2 and is 1 on average. Equal gradients are in one part, the lowest. Values
    without a gradient, which do not move (such as those outside of the region), are in no part.

    Args:
        stairs: number of parts, 1 or more; the paper's percentile K of 1.5625 is 64. 1 is the sign.

    Raises:
        ValueError: stairs is below 1.

    Example:
        >>> Staircase(stairs=2).weights(torch.tensor([[[[0.1, -4.0, 3.0, -0.2]]]]))
        tensor([[[[0.5000, 1.5000, 1.5000, 0.5000]]]])
    """

    def __init__(self, stairs: int = 64) -> None:
        if stairs < 1:
            raise ValueError(f"stairs={stairs}: must be 1 or more; the paper's is 64")
        self.stairs = stairs

    def weights(self, direction: Tensor) -> Tensor:
        sizes = direction.abs().flatten(1)
        still = (sizes == 0).sum(1, keepdim=True)  # they are sorted first
        parts = torch.arange(1, self.stairs + 1, device=direction.device)
        ends = still + ((sizes.shape[1] - still) * parts + self.stairs - 1) // self.stairs - 1
        tops = sizes.sort(dim=1).values.gather(1, ends.clamp_min(0))
        parts = torch.searchsorted(tops, sizes)
        return ((2 * parts + 1) / self.stairs).to(direction.dtype).view_as(direction)


class Rescale(SignReplacement):
    """Longer steps for values with larger gradients, by the logarithm of their size: the rescaling of S-FGRM.

    Source: X. Han, A. Liu, C. Yao, Y. Fan, K. He, "Sampling-based Fast Gradient Rescaling Method for Highly
    Transferable Adversarial Attacks", 2023, arXiv 2307.02828.

        w = factor * sigmoid((log2|g| - mean) / std)            mean and std of log2|g| over the image

    Values without a gradient, whose logarithm does not exist, count for neither. The released code has another formula;
    a common port has this one, but puts w into the momentum and steps along its sign.

    Args:
        factor: above 0; the paper's is 2, so that w is 1 for a value of average size.

    Raises:
        ValueError: factor is not above 0.

    Example:
        >>> Rescale().weights(torch.tensor([[[[1.0, -4.0, 16.0, 0.0]]]]))[..., :3]      # log2: 0, 2, 4; mean 2, std 2
        tensor([[[[0.5379, 1.0000, 1.4621]]]])
    """

    def __init__(self, factor: float = 2.0) -> None:
        if not 0 < factor < math.inf:  # NaN too
            raise ValueError(f"factor={factor}: must be a number above 0; the paper's is 2")
        self.factor = factor

    def weights(self, direction: Tensor) -> Tensor:
        known = direction != 0
        logarithms = torch.where(known, direction.abs(), 1.0).log2()
        count = known.sum(dim=(1, 2, 3), keepdim=True)
        mean = logarithms.sum(dim=(1, 2, 3), keepdim=True) / count.clamp_min(1)
        offsets = torch.where(known, logarithms - mean, 0.0)
        variance = offsets.square().sum(dim=(1, 2, 3), keepdim=True) / (count - 1).clamp_min(1)
        spread = variance.sqrt().clamp_min(torch.finfo(direction.dtype).tiny)
        return self.factor * torch.sigmoid(offsets / spread)


class NonSign(SignReplacement):
    """Steps along the gradient itself, as long as those along its sign: fast gradient non-sign methods.

    Source: Y. Cheng, J. Song, X. Zhu, Q. Zhang, L. Gao, H. T. Shen, "Fast Gradient Non-sign Methods", 2021, arXiv
    2110.12734.

        step step_size * z * g,   z = |sign(g)|_2 / |g|_2 of each image

    In L2 it does nothing: there steps are like this anyway.

    Example:
        >>> NonSign().weights(torch.tensor([[[[3.0, -4.0, 0.0]]]]))                     # z = sqrt(2) / 5
        tensor([[[[0.8485, 1.1314, 0.0000]]]])
    """

    def weights(self, direction: Tensor) -> Tensor:
        changed = direction.count_nonzero((1, 2, 3)).view(-1, 1, 1, 1)
        return changed.sqrt().to(direction) * unit(direction).abs()


class AdaptiveTanh(GradientTransform):
    """AI-FGTM: the adaptive step of Adam, in which tanh takes the place of the sign.

    Source: J. Zou, Y. Duan, B. Li, W. Zhang, Y. Pan, Z. Pan, "Making Adversarial Examples More Transferable and
    Indistinguishable", AAAI 2022, arXiv 2007.03838.

        m <- m + mu1 * g,     v <- v + mu2 * g^2,     step a_t * tanh(strength * m / sqrt(v))
        a_t = step_size * T * c_t / (c_1 + ... + c_T),     c_t = (1 - beta1^t) / sqrt(1 - beta2^t)       t = 1 .. T

    so that the steps are `step_size` long on average, as the paper's, whose lengths add up to eps.

    Args:
        strength: lambda, above 0; the paper's is 1.3.
        mu1: above 0; the paper's is 1.5.
        mu2: above 0; the paper's is 1.9.
        beta1: in [0, 1); the paper's is 0.9.
        beta2: in [0, 1); the paper's is 0.99.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from lightning_attack.attacks.random import Draws
        >>> budget = Budget(1.0, 0.1, 1, Draws([0]))
        >>> ascent = AdaptiveTanh(strength=1.0, mu1=2.0, mu2=4.0)(lambda x: x, budget)
        >>> ascent(torch.tensor([[[[3.0, -1.0]]]])), budget.scale        # m = 2 g, v = 4 g^2: tanh(1) for both
        (tensor([[[[ 1., -1.]]]]), tensor([[[[0.7616, 0.7616]]]]))
    """

    accumulates = True
    scales = True

    def __init__(
        self, strength: float = 1.3, mu1: float = 1.5, mu2: float = 1.9, beta1: float = 0.9, beta2: float = 0.99
    ) -> None:
        for name, value in (("strength", strength), ("mu1", mu1), ("mu2", mu2)):
            if not 0 < value < math.inf:  # NaN too
                raise ValueError(f"{name}={value}: must be a number above 0")
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value}: must be 0 or more, below 1")
        self.strength, self.mu1, self.mu2, self.beta1, self.beta2 = strength, mu1, mu2, beta1, beta2

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        first: Tensor | float = 0.0
        second: Tensor | float = 0.0
        lengths = self.lengths(budget.steps)

        def fgtm(x: Tensor) -> Tensor:
            nonlocal first, second
            here = gradient(x)
            first, second = first + self.mu1 * here, second + self.mu2 * here.square()
            share = lengths[budget.step]
            size = torch.finfo(here.dtype).tiny
            direction = first / second.sqrt().clamp_min(size)
            bent = (self.strength * direction).tanh()
            if not budget.signs:
                budget.scale = budget.scale * share
                return bent
            budget.scale = budget.scale * (share * bent.abs())
            return direction

        return fgtm

    def lengths(self, steps: int) -> list[float]:
        """a_t / step_size of each step; their mean is 1.

        Example:
            >>> [round(length, 3) for length in AdaptiveTanh().lengths(3)]
            [0.765, 1.031, 1.204]
        """
        raw = [(1 - self.beta1**t) / math.sqrt(1 - self.beta2**t) for t in range(1, steps + 1)]
        return [steps * value / sum(raw) for value in raw]

"""`GradientTransform`: what happens to the gradient before the step (momentum, smoothing, look-ahead)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.to_device import to_device
from lightning_attack.engine.autocast import full_precision

GradientFunction = Callable[[Tensor], Tensor]
"""A point x (B, 3, H, W) -> the gradient of each image's loss there, (B, 3, H, W)."""


@dataclass
class Budget:
    """What a gradient transform knows of its attack: sizes in [0, 1] pixels, random numbers and the current iterate.

    `eps` and `step_size` are sizes of one value. In L2, where the attack's own are lengths of a whole image's change,
    they are what each value moves if all move alike.

    `point` is the iterate of the current step, set by the loop before each step. The point at which a transform is
    evaluated may lie elsewhere, such as ahead of the iterate with `Nesterov`.

    `step` is the number of the current step, from 0, set by the loop as well. Steps that an attack takes beforehand to
    look around, as `GlobalMomentum` does, are step 0; so transforms go by this number, not by how often they are asked.

    `scale` is the other way round: the length of the coming step in units of its usual one, a number or one for each
    value, (B, 3, H, W). The loop sets it to 1 before each step; transforms with `scales` multiply it.

    `signs` says whether steps go along the sign of the direction, as in L-inf, or along the direction itself, as in L2.
    """

    eps: float
    step_size: float
    steps: int
    draws: Draws
    point: Tensor | None = None
    step: int = 0
    scale: float | Tensor = 1.0
    signs: bool = True


class GradientTransform(ABC):
    """Turns a gradient function into another one, which may take the gradient elsewhere, or at several points.

    Objects hold settings only; state lives in the closure that `__call__` returns, so it ends with the attacked batch.
    """

    accumulates: bool = False
    """Whether it sums gradients over the steps. It must then be evaluated exactly once per step."""
    remembers: bool = False
    """Whether it keeps anything else from step to step. It must then be evaluated exactly once per step, too."""
    samples: int = 0
    """At how many points it takes the gradient in each step; 0 = only once, at one point."""
    scales: bool = False
    """Whether it sets how far each value moves, see `Budget.scale`. It must then see the direction that is taken."""

    @abstractmethod
    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        """The new gradient function."""


class Momentum(GradientTransform):
    """MI: accumulate gradients of unit mean size.

    Source: Y. Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, arXiv 1710.06081.

        m <- g / mean|g| + decay * m        mean over the values of one image

    Args:
        decay: share of the old momentum that stays, 0 or more; the paper's is 1.

    Example:
        >>> ascent = Momentum(decay=1.0)(lambda x: x, Budget(0.1, 0.01, 2, Draws([0])))
        >>> x = torch.tensor([[[[1.0, -3.0]]]])
        >>> ascent(x), ascent(x)
        (tensor([[[[ 0.5000, -1.5000]]]]), tensor([[[[ 1., -3.]]]]))
    """

    accumulates = True

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = check_decay(decay)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        momentum: Tensor | float = 0.0

        def mi(x: Tensor) -> Tensor:
            nonlocal momentum
            momentum = unit_mean(gradient(x)) + momentum * self.decay
            return momentum

        return mi


class RunningMean(GradientTransform):
    """Mean of the gradients of all steps so far, each as large as it is: the mean of ANDA.

    Source: Z. Fang, R. Wang, T. Huang, L. Jing, "Strong Transferable Adversarial Attacks via Ensembled Asymptotically
    Normal Distribution Learning", CVPR 2024, arXiv 2209.11964; with the views of `GridShifts` the ANDA attack.

        returned in step t: (g_1 + ... + g_t) / t

    The paper's distribution of perturbations has this mean. Its attack with one example, the default of the released
    code, steps along the mean; the covariance, which serves to draw further examples, is not kept here. Unlike
    `Momentum` it does not bring gradients to one size, so steps with a steep loss count for more.

    Example:
        >>> ascent = RunningMean()(lambda x: x, Budget(0.1, 0.01, 2, Draws([0])))
        >>> ascent(torch.ones(1, 1, 1, 1)), ascent(torch.full((1, 1, 1, 1), 4.0))
        (tensor([[[[1.]]]]), tensor([[[[2.5000]]]]))
    """

    accumulates = True

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        total: Tensor | float = 0.0
        steps = 0

        def mean(x: Tensor) -> Tensor:
            nonlocal total, steps
            total, steps = total + gradient(x), steps + 1
            return total / steps

        return mean


class Nesterov(GradientTransform):
    """NI: MI with the gradient taken one step ahead, along the momentum.

    Source: J. Lin et al., "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks", ICLR 2020,
    arXiv 1908.06281.

        g = gradient at x + step_size * decay * m,     m <- decay * m + g / mean|g|

    The point ahead may lie outside [0, 1] and the ball, as in the paper.

    Args:
        decay: as in MI; the paper's is 1.
    """

    accumulates = True

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = check_decay(decay)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        momentum: Tensor | float = 0.0

        def ni(x: Tensor) -> Tensor:
            nonlocal momentum
            ahead = x + self.decay * budget.step_size * momentum
            momentum = self.decay * momentum + unit_mean(gradient(ahead))
            return momentum

        return ni


class PreGradient(GradientTransform):
    """PI with a pre-gradient: MI with the gradient taken one step ahead, along the last gradient alone.

    Source: X. Wang, J. Lin, H. Hu, J. Wang, K. He, "Boosting Adversarial Transferability through Enhanced Momentum",
    BMVC 2021, arXiv 2103.10609, where it is PI-FGSM. This is not the patch-wise PI-FGSM of L. Gao et al., ECCV 2020,
    arXiv 2007.06765, which other libraries have under that name.

        g = gradient at x + step_size * decay * p,     p <- g / mean|g|,     m <- decay * m + p        p = 0 at first

    The released code has no decay in the look-ahead; ports have one, as NI does. With the paper's decay of 1 it is the
    same. The point ahead may lie outside [0, 1] and the ball, as in the released code.

    Args:
        decay: as in MI; the paper's is 1. Here 0 takes away the look-ahead and the momentum.

    Raises:
        ValueError: decay is below 0.

    Example:
        >>> ascent = PreGradient(decay=1.0)(lambda x: x, Budget(0.3, 0.25, 2, Draws([0])))
        >>> x = torch.tensor([[[[1.0, -3.0]]]])
        >>> ascent(x)                                   # nothing to look along yet: x / 2
        tensor([[[[ 0.5000, -1.5000]]]])
        >>> ascent(torch.ones(1, 1, 1, 2))              # ahead: (1.125, 0.625), whose mean is 0.875
        tensor([[[[ 1.7857, -0.7857]]]])
    """

    accumulates = True

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = check_decay(decay)

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        momentum: Tensor | float = 0.0
        last: Tensor | float = 0.0

        def pi(x: Tensor) -> Tensor:
            nonlocal momentum, last
            last = unit_mean(gradient(x + self.decay * budget.step_size * last))
            momentum = self.decay * momentum + last
            return momentum

        return pi


class TranslationInvariance(GradientTransform):
    """TI: smooth the gradient with a Gaussian, which approximates attacking shifted copies of the image.

    Source: Y. Dong, T. Pang, H. Su, J. Zhu, "Evading Defenses to Transferable Adversarial Examples by
    Translation-Invariant Attacks", CVPR 2019, arXiv 1904.02884.

        g <- W * g per colour,   W_ij proportional to exp(-(u_i^2 + u_j^2) / 2),   u = points from -nsig to nsig

    The border is padded with zeros. The kernel is rounded to float32, as in the released code.

    Args:
        kernel_size: width in pixels, odd; the paper's is 15 (for 299 px ImageNet photos), 1 does nothing.
        nsig: how many standard deviations the kernel spans to each side, above 0.

    Raises:
        ValueError: kernel_size is not an odd number above 0, or nsig is not above 0.

    Example:
        >>> kernel = TranslationInvariance(kernel_size=3, nsig=1.0).kernel()       # outer product of (.274, .452, .274)
        >>> [round(value, 3) for value in kernel[1].tolist()]
        [0.124, 0.204, 0.124]
    """

    def __init__(self, kernel_size: int = 15, nsig: float = 3.0) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0 or not nsig > 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd and above 0, nsig={nsig} above 0")
        self.kernel_size, self.nsig = kernel_size, nsig

    def kernel(self) -> Tensor:
        """W, (kernel_size, kernel_size), float32, sum 1."""
        if self.kernel_size == 1:
            return torch.ones(1, 1)
        points = torch.linspace(-self.nsig, self.nsig, self.kernel_size, dtype=torch.float64)
        row = torch.exp(-(points**2) / 2)
        kernel = torch.outer(row, row)
        return (kernel / kernel.sum()).float()

    def __call__(self, gradient: GradientFunction, budget: Budget) -> GradientFunction:
        kernel = to_device(self.kernel()[None, None], budget.draws.device)

        def ti(x: Tensor) -> Tensor:
            smooth = gradient(x)
            colours = smooth.shape[1]
            weight = kernel.to(smooth).expand(colours, -1, -1, -1)
            with full_precision(smooth):
                return F.conv2d(smooth, weight, padding="same", groups=colours)

        return ti


def unit_mean(gradient: Tensor) -> Tensor:
    """Each image's gradient divided by its mean absolute value; a gradient of zero stays zero."""
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)


def check_order(transforms: Sequence[GradientTransform]) -> None:
    """Raise if a transform that samples comes after one that accumulates or remembers, or one that scales is not last.

    The first transform is next to the model. A later one that takes several gradients per step would advance the state
    of an earlier one, such as its momentum, several times per step. One that scales the step looks at its direction.

    Raises:
        ValueError: the order is wrong, or no order of two of the transforms can work.

    Example:
        >>> check_order([Momentum(), Nesterov()])
        Traceback (most recent call last):
            ...
        ValueError: Momentum and Nesterov both accumulate the gradient over the steps; use one of them
    """
    for index, late in enumerate(transforms):
        for early in transforms[:index]:
            if problem := _clash(early, late):
                raise ValueError(problem)


def _clash(early: GradientTransform, late: GradientTransform) -> str:
    """Why `late` cannot come after `early`, and what to do; nothing if it can."""
    first, second = type(early).__name__, type(late).__name__
    if early.accumulates and late.accumulates:
        return f"{first} and {second} both accumulate the gradient over the steps; use one of them"
    if early.scales and not late.scales:
        return f"{first} sets the lengths of steps along the final direction, which {second} changes; put {first} last"
    if not late.samples or not (early.accumulates or early.remembers):
        return ""
    if early.accumulates:
        moved, instead = "advance the momentum", f"Put {first} last"
    else:
        moved = f"change what {first} remembers of the step before"
        instead = "Use one of them" if early.samples and late.remembers else f"Put {second} before {first}"
    return f"{second} cannot come after {first}: it would {moved} more than once a step. {instead}"


def check_decay(decay: float) -> float:
    """The share of the old momentum that stays, if it is 0 or more; else `ValueError`."""
    if not decay >= 0:  # NaN too
        raise ValueError(f"decay={decay}: must be 0 or more")
    return decay

"""What rewriting a network costs, in what the network itself computes: counts, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FORWARD_PRICE, BACKWARD_PRICE = 24e6, 12e6
"""For each operator of a network, how many values its forward passes must compute until rewriting it for one shape of
images has paid: of forward passes alone, and of those with a backward pass. Measured, see the engine's README."""
LEAST_VALUES = 64e3
"""For each operator of a network, how many values a single pass must compute: the time of small images goes into
calling operators, which rewriting does not save."""
WORTH_COUNTING = 1e6
"""Pixels in all passes together below which no network is large enough."""


@dataclass(frozen=True)
class Work:
    """What a forward pass of a network consists of.

    Attributes:
        operators: how many; views are none.
        values: how many they compute, for each pixel of an image.
        fixed: how many more for an image of any size, as networks do that resize images to a size of their own.
    """

    operators: int
    values: float
    fixed: float = 0.0

    def repays(self, pixels: int, passes: float, price: float) -> bool:
        """Whether rewriting for one shape pays.

        Args:
            pixels: of an image.
            passes: that will come with images of this shape.
            price: `FORWARD_PRICE` or `BACKWARD_PRICE`.

        Example:
            >>> network = Work(operators=200, values=500)
            >>> network.repays(500 * 500, 20, BACKWARD_PRICE), network.repays(500 * 500, 19, BACKWARD_PRICE)
            (True, False)
            >>> network.repays(100 * 100, 10**6, BACKWARD_PRICE)
            False
        """
        each = self.fixed + pixels * self.values
        return each >= LEAST_VALUES * self.operators and passes * each >= price * self.operators


def count_work(network: Callable[[Tensor], object], images: Tensor) -> Work | None:
    """Count what a network computes for images (B, 3, H, W); None where it cannot be seen, nor rewritten then.

    Example:
        >>> count_work(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU()), torch.zeros(2, 3, 4, 4))
        Work(operators=2, values=16.0, fixed=0.0)
    """
    try:
        from torch.utils._python_dispatch import TorchDispatchMode  # not public: a build of torch may lack it
        from torch.utils._pytree import tree_leaves
    except ImportError:
        return None

    class Count(TorchDispatchMode):
        operators = values = 0

        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operator(*args, **(kwargs or {}))
            if not operator.is_view:
                self.operators += 1
                self.values += sum(one.numel() for one in tree_leaves(result) if isinstance(one, Tensor))
            return result

    try:
        with torch.no_grad(), Count() as count:  # type: ignore[no-untyped-call]
            network(images)
    except Exception:  # networks raise whatever they like; run as they are, they will do so again
        return None
    return Work(count.operators, count.values / (images.shape[0] * images.shape[-2] * images.shape[-1]))


def count_growth(network: Callable[[Tensor], object], small: Tensor, large: Tensor) -> Work | None:
    """The same for images of any size, by those of two sizes: what does not grow with the pixels is `fixed`.

    Where a network takes small images only, all is taken to grow.

    Example:
        >>> def resizes(images):
        ...     return torch.nn.functional.interpolate(images, (8, 8)).relu()
        >>> count_growth(resizes, torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 16, 16))
        Work(operators=2, values=0.0, fixed=384.0)
    """
    few, many = count_work(network, small), count_work(network, large)
    if few is None or many is None:
        return few
    pixels = small.shape[-2] * small.shape[-1]
    more = large.shape[-2] * large.shape[-1] / pixels
    slope = min(max((more * many.values - few.values) / (more - 1), 0.0), few.values)
    return Work(few.operators, slope, (few.values - slope) * pixels)

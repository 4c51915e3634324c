"""`with_gradient_of` and `mixed`: one tensor's values with the gradient of another, or a share of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """The values of the first tensor, bit for bit; the gradient goes on to the second and not to the first.

    Example:
        >>> import torch
        >>> z = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> result = with_gradient_of(z.relu(), 3 * z)
        >>> result.tolist(), torch.autograd.grad(result.sum(), z)[0].tolist()
        ([0.0, 2.0], [3.0, 3.0])
    """
    result: Tensor = _Swapped.apply(value.detach(), surrogate)
    return result


def mixed(true: Tensor, surrogate: Tensor, strength: float) -> Tensor:
    """The surrogate and the true value in shares of `strength` and 1 - `strength`."""
    return surrogate if strength == 1 else torch.lerp(true, surrogate, strength)


class _Swapped(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient

"""Convolutions with a stride as convolutions without one, where those are faster."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def thinned(images: Tensor, stride: list[int]) -> Tensor:
    """Every n-th row and column of images: all that a 1x1 convolution with a stride reads."""
    return images[..., :: stride[0], :: stride[1]].contiguous(memory_format=torch.channels_last)


def spread(images: Tensor, stride: list[int], size: list[int]) -> Tensor:
    """The adjoint of `thinned`: values at every n-th row and column of a larger image, zeros elsewhere.

    Example:
        >>> spread(torch.tensor([[[[1.0, 2.0]]]]), [1, 2], [1, 4])
        tensor([[[[1., 0., 2., 0.]]]])
    """
    result = torch.zeros_like(images[:, :, :1, :1].expand(*images.shape[:2], *size), memory_format=torch.channels_last)
    result[..., :: stride[0], :: stride[1]] = images
    return result


def phases(
    weight: Tensor, stride: int, padding: Sequence[int], images: Sequence[int], results: Sequence[int]
) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """A transposed convolution as a convolution with stride 1, all of whose phases are channels of their own.

    A transposed convolution writes at y = s i - p + u, for input i and tap u. For results of the phase a, y = s q + a,
    that is u = s (q - i) + a + p: a convolution over i for each of the phases.

    Args:
        weight: (C, C', kernel), as of a transposed convolution without dilation.
        stride: s, down and across.
        padding: p, down and across.
        images: height and width of its input.
        results: height and width of its output.

    Returns:
        The weight (C' s^2, C, kernel') of the convolution, its padding, and the number of rows and columns by which its
        results come too late. `shuffled` sorts them.
    """
    taps, paddings, lates = [], [], []
    for axis in (0, 1):
        kernel, p = weight.shape[2 + axis], padding[axis]
        first, last = -((stride - 1 + p) // stride), (kernel - 1 - p) // stride  # the range of q - i
        table = torch.arange(stride)[:, None] + p + stride * torch.arange(last, first - 1, -1)  # u of (a, i)
        # One tap of zeros at the end, for those outside of the kernel.
        taps.append(torch.where((table >= 0) & (table < kernel), table, kernel))
        beyond = min((results[axis] - 1) // stride - (images[axis] - 1), last)
        paddings.append(max(last, beyond - first, 0))
        lates.append(paddings[-1] - last)
    down, across = taps
    chosen = F.pad(weight, (0, 1, 0, 1))[:, :, down[:, None, :, None], across[None, :, None, :]]
    turned = chosen.flatten(1, 3).transpose(0, 1).contiguous()  # (C, C', s, s, kernel') before
    return turned, (paddings[0], paddings[1]), (lates[0], lates[1])


def shuffled(results: Tensor, stride: int, late: list[int], size: list[int]) -> Tensor:
    """The results of a convolution by `phases` as those of the transposed one, of a height and a width."""
    in_order = F.pixel_shuffle(results[..., late[0] :, late[1] :], stride)[..., : size[0], : size[1]]
    # Rows and columns that no tap reaches.
    below, right = size[0] - in_order.shape[-2], size[1] - in_order.shape[-1]
    return F.pad(in_order, (0, right, 0, below)).contiguous(memory_format=torch.channels_last)

"""Convolutions with a stride as convolutions without one, where those are faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def thinned(images: Tensor, stride: list[int]) -> Tensor:
    """Every n-th row and column of images: what a 1x1 convolution with a stride looks at."""
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


def phases(weight: Tensor, stride: int, padding: tuple[int, int]) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """A transposed convolution as a convolution with stride 1, all of whose phases are channels of their own.

    A transposed convolution writes at y = s i - p + u, for input i and tap u. For results of the phase a, y = s q + a,
    that is u = s (q - i) + a + p: a convolution over i for each of the phases.

    Args:
        weight: (C, C', kernel), as of a transposed convolution.
        stride: s, down and across.
        padding: p, down and across.

    Returns:
        The weight (C' s^2, C, kernel') of the convolution, its padding, and the number of rows and columns by which its
        results come too late. Its results are to be sorted by `F.pixel_shuffle`.
    """
    taps, paddings, lates = [], [], []
    for kernel, p in zip(weight.shape[-2:], padding, strict=True):
        # For each phase, the tap that looks at the input i = q - shift.
        first, last = -((stride - 1 + p) // stride), (kernel - 1 - p) // stride
        shifts = range(last, first - 1, -1)  # i grows from q - last to q - first
        taps.append([[stride * shift + a + p for shift in shifts] for a in range(stride)])
        padded = max(last, -first)
        paddings.append(padded)
        lates.append(padded - last)
    # One tap of zeros at the end, where those outside of the kernel point to.
    full = F.pad(weight, (0, 1, 0, 1))
    down, across = (
        torch.tensor([[u if 0 <= u < kernel else kernel for u in row] for row in table])
        for table, kernel in zip(taps, weight.shape[-2:], strict=True)
    )
    chosen = full[:, :, down[:, None, :, None], across[None, :, None, :]]  # (C, C', s, s, kernel')
    return chosen.flatten(1, 3).transpose(0, 1).contiguous(), (paddings[0], paddings[1]), (lates[0], lates[1])


def shuffled(results: Tensor, stride: int, late: list[int], size: list[int]) -> Tensor:
    """The results of a convolution by `phases` as those of the transposed one, of a height and a width."""
    sorted_ = F.pixel_shuffle(results[..., late[0] :, late[1] :], stride)
    return sorted_[..., : size[0], : size[1]].contiguous(memory_format=torch.channels_last)

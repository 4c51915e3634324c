"""Dilated depthwise convolution by shifted slices, where the library's own is many times slower."""

from __future__ import annotations

import torch
from torch import Tensor


def dilated_depthwise(
    images: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], dilation: list[int]
) -> Tensor:
    """y[c, i, j] = b_c + sum_uv w[c, u, v] x[c, i + u d - p, j + v d - p], zeros outside: one pass for each (u, v).

    With large dilations most of the taps fall outside of small maps, and cost little or nothing.

    Args:
        images: (B, C, H, W).
        weight: (C, 1, kernel height, kernel width).
        bias: (C,) or None.
        padding: rows and columns of zeros on each side.
        dilation: distance of the taps, down and across.

    Example:
        >>> row = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
        >>> taps = torch.tensor([10.0, 1.0, 100.0]).view(1, 1, 1, 3)
        >>> dilated_depthwise(row, taps, None, [0, 2], [1, 2]).flatten().tolist()      # 1 + 100 * 3, ..., 10 * 2 + 4
        [301.0, 402.0, 13.0, 24.0]
    """
    (height, width), (rows, columns) = images.shape[-2:], weight.shape[-2:]
    out_height = height + 2 * padding[0] - dilation[0] * (rows - 1)
    out_width = width + 2 * padding[1] - dilation[1] * (columns - 1)
    # Sums of half types are kept in float32, as in the library's own convolutions.
    kind = torch.float32 if images.dtype == torch.bfloat16 else images.dtype
    start = torch.zeros((), dtype=kind) if bias is None else bias.view(1, -1, 1, 1)
    shape = (*images.shape[:2], out_height, out_width)
    result = torch.empty(shape, dtype=kind, memory_format=torch.channels_last).copy_(start)
    for row in range(rows):
        to_row, from_row = _overlap(row * dilation[0] - padding[0], out_height, height)
        for column in range(columns):
            to_column, from_column = _overlap(column * dilation[1] - padding[1], out_width, width)
            result[..., to_row, to_column].addcmul_(
                images[..., from_row, from_column], weight[:, 0, row, column].view(1, -1, 1, 1)
            )
    return result.to(images.dtype)


def _overlap(shift: int, length: int, available: int) -> tuple[slice, slice]:
    """Where results i have an input i + shift, and these inputs."""
    start, stop = max(0, -shift), max(0, min(length, available - shift))
    start = min(start, stop)
    return slice(start, stop), slice(start + shift, stop + shift)

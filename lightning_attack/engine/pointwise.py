"""1x1 convolutions as matrix products over pixels, which run at full speed whatever the number of channels."""

from __future__ import annotations

import torch  # noqa: F401 (for the example)
from torch import Tensor

from lightning_attack.engine.internals import LINEAR, PACK_LINEAR


def pack(weight: Tensor) -> Tensor:
    """The weight (C', C, 1, 1) of a 1x1 convolution in the order that `pointwise` wants."""
    packed: Tensor = PACK_LINEAR(weight[:, :, 0, 0].contiguous())
    return packed


def pointwise(
    images: Tensor, packed: Tensor, bias: Tensor | None, activation: str, scalars: list[float], algorithm: str
) -> Tensor:
    """y[:, i, j] = activation(W x[:, i, j] + b) for each pixel.

    The library's own 1x1 convolutions are up to 20 times slower for some numbers of channels, 2048 among them.

    Args:
        images: (B, C, H, W); in channels_last their pixels already are the rows of a matrix.
        packed: W, from `pack`.
        bias: (C',) or None.
        activation: name of the activation in the library, `none` for none.
        scalars: its numbers.
        algorithm: its variant.

    Example:
        >>> weight = torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.0, 2.0]]).view(3, 2, 1, 1)
        >>> pixel = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
        >>> pointwise(pixel, pack(weight), None, "relu", [], "").flatten().tolist()      # 3 + 5, max(0, 3 - 5), 2 * 5
        [8.0, 0.0, 10.0]
    """
    batch, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(-1, channels)
    results: Tensor = LINEAR(rows, packed, bias, activation, scalars, algorithm)
    return results.view(batch, height, width, -1).permute(0, 3, 1, 2)

"""Images in [0, 1] as 8-bit values."""

from __future__ import annotations

import torch
from torch import Tensor


def to_bytes(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as uint8 on the CPU, rounded.

    Example:
        >>> to_bytes(torch.tensor([[[[0.9999 * 8 / 255]]]])).item()
        8
    """
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu()

"""`content`: the bytes of a tensor, to be hashed."""

from __future__ import annotations

import torch
from torch import Tensor


def content(tensor: Tensor) -> memoryview:
    """The values of a tensor in their order, whatever its layout in memory and its device.

    Example:
        >>> content(torch.tensor([[1, 3], [2, 4]], dtype=torch.uint8).T).tolist()
        [1, 2, 3, 4]
    """
    values: memoryview = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return values

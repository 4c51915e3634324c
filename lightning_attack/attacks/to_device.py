"""`to_device`: a copy from the host to a device that the host does not wait for."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Numbers of the host, on a device.

    A copy out of ordinary memory may wait until the device has done all it was asked before, whatever `non_blocking`
    says; one out of pinned memory lines up behind it. Torch gives pinned memory away again only when it has been read.

    Args:
        values: on the CPU.
        device: where they are wanted; the CPU and `mps`, which share the memory of the host, need no pinned copy.

    Example:
        >>> to_device(torch.tensor([1.0, 2.0]), "cpu")
        tensor([1., 2.])
    """
    if torch.device(device).type in ("cpu", "mps"):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)

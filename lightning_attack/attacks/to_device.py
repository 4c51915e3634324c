"""`to_device`: copy numbers to a device without making the host wait."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor from the CPU to a device, without waiting for the device.

    A copy from ordinary memory may wait until the device has finished all earlier work, whatever `non_blocking` says; a
    copy from pinned memory is queued. Torch reuses pinned memory only after it has been read.

    Args:
        values: on the CPU.
        device: where they are wanted; the CPU and `mps`, which share the memory of the host, need no pinned copy.

    Example:
        >>> to_device(torch.tensor([1.0, 2.0]), "cpu")
        tensor([1., 2.])
    """
    if torch.device(device).type in ("cpu", "mps"):
        return values.to(device)
    pinned = values if values.is_pinned() else values.pin_memory()
    return pinned.to(device, non_blocking=True)

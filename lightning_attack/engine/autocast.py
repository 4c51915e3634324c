"""Arithmetic that autocast must not round, and whether it is on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Context in which products are computed in the type of their factors, whatever autocast is on for the network.

    `trainer.precision=bf16-mixed` is for the passes of the networks. In an attack's own convolutions and matrix
    products it would round the direction of the step to 8 bits.

    Args:
        values: a tensor on the device of the computation.

    Example:
        >>> third = torch.tensor([[1 / 3]])
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     rounded = third @ third
        ...     with full_precision(third):
        ...         exact = third @ third
        >>> rounded.dtype, exact.dtype
        (torch.bfloat16, torch.float32)
    """
    device = values.device.type
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


def autocast_is_on(device: str) -> bool:
    """Whether networks compute in the precision of `torch.autocast` on a type of device; some types know none.

    Example:
        >>> autocast_is_on("cpu"), autocast_is_on("meta")
        (False, False)
    """
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)

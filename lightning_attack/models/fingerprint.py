"""`fingerprint`: whether two networks are the same, without running them."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import nn


def fingerprint(network: nn.Module) -> str:
    """A hash of a network's class and of all its parameters and buffers: 16 hexadecimal digits.

    It is the same in every process and on every machine; settings that leave no trace in a tensor, such as a stride,
    are not seen.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> fingerprint(layer) == fingerprint(layer), fingerprint(layer) == fingerprint(nn.Linear(2, 1))
        (True, False)
    """
    digest = blake2b(type(network).__name__.encode(), digest_size=8)
    for name, tensor in sorted([*network.named_parameters(), *network.named_buffers()]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

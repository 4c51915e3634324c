"""`draws_for`: random numbers of a defended network, which depend on the image and on nothing else."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

from lightning_attack.engine.content import content


def draws_for(image: Tensor, seed: int) -> torch.Generator:
    """A generator on the CPU that is the same for the same image and seed, in every batch, process and run.

    Args:
        image: (3, H, W).
        seed: any integer of 64 bits.

    Example:
        >>> torch.rand(1, generator=draws_for(torch.ones(3, 2, 2), 0)) == torch.rand(
        ...     1, generator=draws_for(torch.ones(3, 2, 2), 0)
        ... )
        tensor([True])
        >>> draws_for(torch.zeros(3, 1, 1), 0).initial_seed() == draws_for(-torch.zeros(3, 1, 1), 0).initial_seed()
        True
    """
    # -0 equals 0, and adding 0 makes it that.
    digest = blake2b(content(image.detach().cpu() + 0.0), digest_size=8, key=seed.to_bytes(8, "little", signed=True))
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little") % 2**63)

"""`probe`: run a network once, before anything depends on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attack.models.wrapper import ModelError, freeze, without_engines


def noise(size: tuple[int, int]) -> Tensor:
    """An image of noise, (1, 3, *size) in [0, 1], always the same."""
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def probe(network: nn.Module, name: str, size: tuple[int, int]) -> Tensor:
    """Logits of a small fixed image of noise: shows that a network runs, its classes, and whether two are the same."""
    image = noise(size)
    freeze(network)
    try:
        with torch.no_grad(), without_engines(network):
            logits = network(image)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"network '{name}' fails on a {size[0]}x{size[1]} image ({type(error).__name__}: {error}); "
            "if it takes one size only, set model.probe_size to it, if multiples of some size, the network's stride"
        ) from error
    if not logits.isfinite().all():
        raise ModelError(
            f"network '{name}' returns NaN or infinite logits for an image of noise; are its weights whole?"
        )
    return logits

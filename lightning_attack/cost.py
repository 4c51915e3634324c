"""What an attack costs: time, and passes of the source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def clock(images: Tensor) -> float:
    """Seconds, after what was asked of the device is done."""
    if images.device.type != "cpu":
        torch.accelerator.synchronize(images.device)
    return time.perf_counter()


@contextmanager
def count_passes(source: nn.Module) -> Iterator[dict[str, int]]:
    """Count forward and backward passes, image by image; of an ensemble those of its members."""
    passes = {"forward": 0, "backward": 0}

    def forward(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        passes["forward"] += len(inputs[0])
        if not inputs[0].requires_grad:
            return None
        # At the input, which the gradient of every loss reaches, of features too; a view of its own for each pass,
        # because several networks may be shown the same tensor.
        images = inputs[0].view_as(inputs[0])
        images.register_hook(backward)
        return (images, *inputs[1:])

    def backward(gradient: Tensor) -> None:
        passes["backward"] += len(gradient)

    hooks = [network.register_forward_pre_hook(forward) for network in getattr(source, "members", [source])]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()

"""`CompiledProgram`: a network's graph for one shape of images, compiled by inductor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attack.engine.program import channels_last, rewritten


class CompiledProgram:
    """As `Program`, with torch.compile in place of the rewrites that are written by hand.

    The first call, and the first whose images require a gradient, take the compiler's time: a minute for the usual
    networks. Inductor keeps what it has compiled on disk, for later runs.

    Args:
        network: the network, frozen, in eval mode.
        images: the shape.
        bfloat16: whether to compute in bfloat16.

    Raises:
        Exception: see `Program`; at a call, whatever the compiler raises, as where there is no C++ compiler.
    """

    def __init__(self, network: nn.Module, images: tuple[int, ...], bfloat16: bool) -> None:
        self._compiled = torch.compile(rewritten(network, images, bfloat16), dynamic=False, fullgraph=True)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the images."""
        return self._compiled(channels_last(images))

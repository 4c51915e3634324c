"""`CompiledProgram`: a network's graph for one shape of images, compiled by inductor."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from lightning_attack.engine.program import Pass, channels_last, rewritten, watched

_PASSES: weakref.WeakSet[Pass] = weakref.WeakSet()
"""Passes of all compiled programs: what CUDA graphs of torch.compile keep for a backward pass has one place for all."""


class CompiledProgram:
    """As `Program`, with torch.compile in place of the rewrites that are written by hand.

    The first call, and the first whose images require a gradient, take the compiler's time: a minute for the usual
    networks. Inductor keeps what it has compiled on disk, for later runs.

    Args:
        network: the network, frozen, in eval mode.
        images: the shape.
        bfloat16: whether to compute in bfloat16.
        device: where the network is. On CUDA a pass's kernels are recorded once and started together (CUDA graphs).

    Raises:
        Exception: see `Program`; at a call, whatever the compiler raises, as where there is no C++ compiler.
    """

    def __init__(self, network: nn.Module, images: tuple[int, ...], bfloat16: bool, device: torch.device) -> None:
        self._recorded = device.type == "cuda"
        graph, mode = rewritten(network, images, bfloat16, device), "reduce-overhead" if self._recorded else None
        self._compiled = torch.compile(graph, dynamic=False, fullgraph=True, mode=mode)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the images."""
        if not self._recorded:
            logits: Tensor = self._compiled(channels_last(images))
            return logits
        if all(known.done for known in _PASSES):
            # A new step: what earlier passes kept may be overwritten. None of them may still have its backward pass.
            torch.compiler.cudagraph_mark_step_begin()
        if images.requires_grad and torch.is_grad_enabled():
            slot = Pass()
            _PASSES.add(slot)
            images = watched(images, slot)
        logits = self._compiled(channels_last(images))
        return logits.clone()  # the next pass writes its own to the same place

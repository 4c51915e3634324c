"""`Program`: the graphs of a network for one shape of images, rewritten and ready to run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lightning_attack.engine.convolution import Packed, lower
from lightning_attack.engine.folding import fold
from lightning_attack.engine.fusion import fuse, reuse
from lightning_attack.engine.graphs import BUILDING, copied, dtype, outputs, replace, shape
from lightning_attack.engine.precision import to_bfloat16
from lightning_attack.engine.trace import CPU, split, trace_forward, trace_joint


def rewritten(
    network: nn.Module, images: tuple[int, ...], bfloat16: bool, device: torch.device = CPU
) -> fx.GraphModule:
    """The graph of the logits for one shape of images, with the rewrites that leave it differentiable."""
    graph = fold(trace_forward(network, images, device))
    return to_bfloat16(graph, images, device) if bfloat16 else graph


class Program:
    """Images (B, 3, H, W) of one shape to logits, with a gradient for the images if they ask for one.

    Args:
        network: the network, frozen, in eval mode.
        images: the shape.
        bfloat16: whether to compute in bfloat16.
        packed: packed weights, shared with the programs for other shapes.

    Raises:
        UnsupportedError: see `trace_forward`.
        Exception: see `trace_forward`.
    """

    def __init__(self, network: nn.Module, images: tuple[int, ...], bfloat16: bool, packed: Packed) -> None:
        self._images, self._packed = images, packed
        self._graph: fx.GraphModule | None = rewritten(network, images, bfloat16)
        self._logits: fx.GraphModule | None = None
        self._parts: tuple[fx.GraphModule, fx.GraphModule, fx.GraphModule] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the images."""
        if images.requires_grad and torch.is_grad_enabled():
            forward, resized, back = self._parts or self._build_parts()
            logits: list[Tensor] = []
            small = _Inner.apply(images, forward, back, outputs(resized)[0], logits)
            result: Tensor = _Resized.apply(small, logits, resized)
            return result
        with torch.no_grad():
            result = (self._logits or self._build_logits())(channels_last(images))
            return result

    def _build_logits(self) -> fx.GraphModule:
        with BUILDING, torch.inference_mode(False):
            if self._logits is None and self._graph is not None:
                self._logits = reuse(fuse(lower(copied(self._graph), self._packed)))
                self._release()
            return self._logits  # type: ignore[return-value]  # another thread may have built it

    def _build_parts(self) -> tuple[fx.GraphModule, fx.GraphModule, fx.GraphModule]:
        with BUILDING, torch.inference_mode(False):
            if self._parts is None and self._graph is not None:
                # Gradients of convolutions are rewritten first: as they are written down, they would keep their inputs.
                forward, *back = split(lower(trace_joint(self._graph, self._images), self._packed))
                resized, rest = (reuse(fuse(part)) for part in back)
                self._parts = reuse(fuse(forward)), resized, _from_a_list(rest)
                self._release()
            return self._parts  # type: ignore[return-value]  # another thread may have built it

    def _release(self) -> None:
        """Drop the graph, and with it the weights that are not packed, once all is built from it."""
        if self._logits is not None and self._parts is not None:
            self._graph = None


def _from_a_list(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with a list in place of its arguments, which it empties, so that each is freed after its last use."""
    graph = module.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_before(inputs[0]):
        given = graph.placeholder("given")
    for node in inputs:
        with graph.inserting_before(node):
            replace(node, graph.call_method("pop", (given, 0)))
    module.recompile()
    return module


class _Inner(Function):
    """The network as one operator, whose result stands for the smallest tensor that the gradient passes through.

    The result has its shape and its type and nothing else; the logits are put into a list.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, forward: fx.GraphModule, back: fx.GraphModule, small: fx.Node, logits: list[Tensor]
    ) -> Tensor:
        result, *kept = forward(channels_last(images))
        ctx.save_for_backward(*kept)
        ctx.graph = back
        logits.append(result)
        return torch.empty((), dtype=dtype(small)).expand(shape(small))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        given = [*ctx.saved_tensors, channels_last(gradient)]
        ctx.maybe_clear_saved_tensors()  # all of them, unless the caller wants to come back
        return ctx.graph(given).contiguous(), None, None, None, None


class _Resized(Function):
    """The last part of the network (resizing the logits) as an operator of its own, which takes them from the list.

    Autograd holds what an operator's backward pass is given until that is done. Were the network one operator, the
    gradient of logits as large as images would be held while the whole network runs backwards.
    """

    @staticmethod
    def forward(ctx: Any, small: Tensor, logits: list[Tensor], back: fx.GraphModule) -> Tensor:
        ctx.graph = back
        return logits.pop().detach()  # the operator above may have kept them; it must not keep their history

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.graph(channels_last(gradient)), None, None


def channels_last(images: Tensor) -> Tensor:
    """The images in the memory layout in which convolutions are fast; unchanged if not four-dimensional."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

"""`Program`: the graphs of a network for one shape of images, rewritten and ready to run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

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


@dataclass(frozen=True)
class Halves:
    """A network's two passes.

    Attributes:
        forward: images to (logits, *what the backward pass needs).
        back: a list of that and of the gradient of `small`, which it empties, to the gradient of the images.
        resized: gradient of the logits to that of `small`.
        small: shape of the smallest tensor that the gradient of the logits passes through, alone.
        dtype: type of it.
    """

    forward: Callable[[Tensor], tuple[Tensor, ...]]
    back: Callable[[list[Tensor]], Tensor]
    resized: Callable[[Tensor], Tensor]
    small: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self, images: Tensor, slot: Pass | None = None) -> Tensor:
        """Logits with a history; `slot` is told when their gradient has been taken."""
        logits: list[Tensor] = []
        small = _Inner.apply(images, self, slot, logits)
        result: Tensor = _Resized.apply(small, logits, self.resized)
        return result


class Pass:
    """A forward pass whose backward pass may still come: until it is `done`, or nothing refers to it any more."""

    def __init__(self) -> None:
        self.done = False


class OnePass:
    """Lets one pass at a time have what there is only one of."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: Callable[[], Pass | None] = lambda: None

    def begin(self) -> Pass | None:
        """A pass, if no other is pending."""
        with self._lock:
            last = self._last()
            if last is not None and not last.done:
                return None
            new = Pass()
            self._last = weakref.ref(new)
            return new


class Backend(Protocol):
    """How graphs are made ready for a device."""

    masks: bool
    """Whether masks are kept for the backward pass in place of values."""

    def adopt(self, module: fx.GraphModule) -> fx.GraphModule:
        """The graph of the logits from which the others are made."""

    def lower(self, module: fx.GraphModule) -> fx.GraphModule:
        """The graph of one or both passes."""

    def finish(self, module: fx.GraphModule) -> fx.GraphModule:
        """A graph that will be run."""


class OneDNN:
    """For CPUs: convolutions of oneDNN on packed weights, joined with what follows them."""

    masks = True

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    def adopt(self, module: fx.GraphModule) -> fx.GraphModule:
        return module

    def lower(self, module: fx.GraphModule) -> fx.GraphModule:
        return lower(module, self._packed)

    def finish(self, module: fx.GraphModule) -> fx.GraphModule:
        return reuse(fuse(module))


class Program:
    """Images (B, 3, H, W) of one shape to logits, with a gradient for the images if they ask for one.

    Args:
        network: the network, frozen, in eval mode.
        images: the shape.
        bfloat16: whether to compute in bfloat16.
        backend: how the graphs are made ready for the device.
        device: where the network is.

    Raises:
        UnsupportedError: see `trace_forward`.
        Exception: see `trace_forward`.
    """

    def __init__(
        self,
        network: nn.Module,
        images: tuple[int, ...],
        bfloat16: bool,
        backend: Backend,
        device: torch.device = CPU,
    ) -> None:
        self._images, self._backend, self._device = images, backend, device
        self._graph: fx.GraphModule | None = backend.adopt(rewritten(network, images, bfloat16, device))
        self._logits: fx.GraphModule | None = None
        self._halves: Halves | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the images."""
        if images.requires_grad and torch.is_grad_enabled():
            return self.halves()(images)
        with torch.no_grad():
            result: Tensor = (self._logits or self._build_logits())(channels_last(images))
            return result

    def _build_logits(self) -> fx.GraphModule:
        with BUILDING, torch.inference_mode(False):
            if self._logits is None and self._graph is not None:
                self._logits = self._backend.finish(self._backend.lower(copied(self._graph)))
                self._release()
            return self._logits  # type: ignore[return-value]  # another thread may have built it

    def halves(self) -> Halves:
        """The two passes, as graphs."""
        if self._halves is not None:
            return self._halves
        with BUILDING, torch.inference_mode(False):
            if self._halves is None and self._graph is not None:
                backend = self._backend
                # Gradients of convolutions are rewritten first: as they are written down, they would keep their inputs.
                joint = backend.lower(trace_joint(self._graph, self._images, self._device))
                forward, *back = split(joint, backend.masks)
                resized, rest = (backend.finish(part) for part in back)
                small = outputs(resized)[0]
                self._halves = Halves(backend.finish(forward), _from_a_list(rest), resized, shape(small), dtype(small))
                self._release()
            return self._halves  # type: ignore[return-value]  # another thread may have built it

    def _release(self) -> None:
        """Drop the graph, and with it the weights that are not packed, once all is built from it."""
        if self._logits is not None and self._halves is not None:
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
    def forward(ctx: Any, images: Tensor, halves: Halves, slot: Pass | None, logits: list[Tensor]) -> Tensor:
        result, *kept = halves.forward(channels_last(images))
        ctx.save_for_backward(*kept)
        ctx.graph, ctx.slot = halves.back, slot
        logits.append(result)
        return torch.empty((), dtype=halves.dtype, device=images.device).expand(halves.small)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        given = [*ctx.saved_tensors, channels_last(gradient)]
        ctx.maybe_clear_saved_tensors()  # all of them, unless the caller wants to come back
        result = ctx.graph(given).contiguous()
        if ctx.slot is not None:
            ctx.slot.done = _cleared(ctx)
        return result, None, None, None


class _Resized(Function):
    """The last part of the network (resizing the logits) as an operator of its own, which takes them from the list.

    Autograd holds what an operator's backward pass is given until that is done. Were the network one operator, the
    gradient of logits as large as images would be held while the whole network runs backwards.
    """

    @staticmethod
    def forward(ctx: Any, small: Tensor, logits: list[Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.graph = back
        return logits.pop().detach()  # the operator above may have kept them; it must not keep their history

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.graph(channels_last(gradient)), None, None


class _Watched(Function):
    """The images as they are, with a note when their gradient has been taken."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, slot: Pass) -> Tensor:
        ctx.save_for_backward(images.new_empty(0))
        ctx.slot = slot
        return images.view_as(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.maybe_clear_saved_tensors()
        ctx.slot.done = _cleared(ctx)
        return gradient, None


def watched(images: Tensor, slot: Pass) -> Tensor:
    """The images, whose `slot` is told when a gradient has passed through them."""
    result: Tensor = _Watched.apply(images, slot)
    return result


def _cleared(ctx: Any) -> bool:
    """Whether a backward pass cannot come again: the caller did not ask to retain the graph."""
    try:
        return not ctx.saved_tensors
    except RuntimeError:
        return True


def channels_last(images: Tensor) -> Tensor:
    """The images in the memory layout in which convolutions are fast; unchanged if not four-dimensional."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

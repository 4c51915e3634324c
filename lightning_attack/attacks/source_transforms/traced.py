"""`TracedNetwork`: the graph of a network, compared with the network before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.source_transforms.graph import SourceGraph
from lightning_attack.attacks.source_transforms.one_form import in_one_form
from lightning_attack.engine.graphs import BUILDING, copied
from lightning_attack.engine.memory import out_of_memory

_CLOSE = 1e-3

_TENSOR = object()
"""Stands for a tensor in what a network returns; the other parts are kept as they are."""


class TracedNetwork:
    """A graph, and the form of what the network returns.

    Args:
        module: the graph; it returns the tensors of the network's output as a list.
        name: of the network, for messages.
        leaves: the parts of the output, in order; a mark stands for each tensor.
        form: how the output is made of them.
        number: tells the networks of an ensemble apart.

    Attributes:
        graph: the same graph as transforms see it.
    """

    def __init__(self, module: fx.GraphModule, name: str, leaves: list[Any], form: Any, number: int = 0) -> None:
        self.module, self.graph, self._leaves, self._form = module, SourceGraph(module, name, number), leaves, form
        self.missed: list[str] = []  # why transforms are left out

    def copied(self, name: str, number: int) -> TracedNetwork:
        """A graph of its own, to be changed, of the same weights."""
        return TracedNetwork(copied(self.module), name, self._leaves, self._form, number)

    def __call__(self, images: Tensor) -> Any:
        found = iter(self.module(images))
        return tree_unflatten([next(found) if leaf is _TENSOR else leaf for leaf in self._leaves], self._form)


def trace_network(original: Callable[[Tensor], Any], name: str, images: Tensor) -> TracedNetwork:
    """The graph of a network, which was compared with it on these images.

    Args:
        original: the network's own `forward`.
        name: of the network, for messages.
        images: (B, 3, H, W); the graph is one for images of this shape, type and device.

    Raises:
        AttackError: it cannot be written as a graph, or that has other values or gradients than the network.
    """
    from lightning_attack.engine.trace import traced  # it needs parts of torch that may be missing

    leaves: list[Any] = []
    form: Any = None

    def flat(images: Tensor) -> list[Tensor]:
        nonlocal leaves, form
        # They ask for a gradient: attention on CUDA keeps what its gradient needs only if it is told at once.
        output = original(images if images.requires_grad else images.detach().requires_grad_())
        if not isinstance(output, Tensor | dict | tuple | list) or hasattr(output, "logits"):
            output = getattr(output, "logits", output)
        found, form = tree_flatten(output)
        leaves = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in found]
        return [leaf for leaf in found if isinstance(leaf, Tensor)]

    shape = tuple(images.shape)
    with torch.no_grad():  # before it is traced: what it keeps from its first run at a size must be real tensors
        expected = flat(images.detach())
    try:
        with BUILDING, torch.inference_mode(False), torch.enable_grad():
            module = in_one_form(traced(flat, shape, device=images.device, dtype=images.dtype))
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise AttackError(
            f"source transforms need the graph of the source, and '{name}' cannot be written as one for images of "
            f"{shape[-2]} x {shape[-1]} ({reason}). What it computes must not depend on the images' values; take "
            "another source, or an attack without source transforms"
        ) from error
    made = TracedNetwork(module, name, leaves, form)
    with torch.no_grad():
        found = module(images.detach())
        if len(found) != len(expected) or not all(map(_alike, found, expected)):
            raise AttackError(
                f"source transforms need the graph of the source, and that of '{name}' does not compute what the "
                "network does: does it draw random numbers? Take another source, or an attack without source transforms"
            )
    if not _same_gradient(module, flat, images):
        raise AttackError(
            f"source transforms need the graph of the source, and that of '{name}' has other gradients than the "
            "network, which stops them on their way (detach, no_grad) or makes its own. Take another source, or an "
            "attack without source transforms"
        )
    return made


def _same_gradient(module: fx.GraphModule, network: Callable[[Tensor], list[Tensor]], images: Tensor) -> bool:
    """Whether a graph has the gradient of its network: it does not know where that stops gradients."""
    from lightning_attack.engine.acceptance import expected_gradient, gradients

    def joined(function: Callable[[Tensor], list[Tensor]]) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.cat([one.flatten() for one in function(images) if one.is_floating_point()])

    with torch.inference_mode(False):
        images = images.detach().clone()
        try:
            expected, tolerance = expected_gradient(joined(network), images)
        except RuntimeError as problem:
            if out_of_memory(problem):
                raise
            return True  # the network has no gradient, and an attack on it says so
        (found,) = gradients(joined(module), images)
    return _near(found, expected, tolerance)


def _alike(found: Tensor, expected: Tensor) -> bool:
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    return _near(found, expected, _CLOSE)


def _near(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether they are as near as that, in relation to the length of what is expected, if that is finite at all."""
    error, norm = (found - expected).double().norm(), expected.double().norm()
    return bool(error <= tolerance * norm) or not bool(expected.isfinite().all())

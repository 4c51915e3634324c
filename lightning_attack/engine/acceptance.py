"""Is a program the network that it was made of? Compared on the first images of each shape, before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lightning_attack.engine.graphs import UnsupportedError
from lightning_attack.engine.support import Precision

Network = Callable[[Tensor], Tensor]

TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bf16": 0.2}
"""Largest difference between the first logits of each shape and those of the network itself, relative to their norm."""

TF32_TOLERANCE = 3e-2
"""The same for compiled programs where TF32 is allowed. Other programs are compared in full float32."""

GRADIENT_TOLERANCE = 0.02
"""Largest difference between the first gradients, relative to their norm. Rounding moves values across the kinks of
ReLU, which makes 0.001 of the norm at most (measured); memory that was overwritten makes more. In bfloat16, gradients
of untrained networks have little in common with the exact ones: they must be finite, and those of the same graph in
float32 are compared."""

STOPPED_TOLERANCE = 2e-3
"""The same for networks that stop gradients (`detach`, `no_grad`) or make their own (`torch.autograd.Function`). Graphs
know nothing of that, and what is stopped may be a small part of the gradient."""

TF32_GRADIENT_TOLERANCE = 0.3
"""The same for compiled programs where TF32 is allowed."""


def check_logits(expected: Tensor, program: Network, images: Tensor, precision: Precision, tf32: bool) -> None:
    """Compare the logits of a program with the network's. A network with random numbers may well not pass.

    Args:
        expected: logits of the network that the program was made of.
        program: what is compared with it.
        images: of the shape that it was made for.
        precision: what it computes in.
        tf32: whether float32 may be TF32 meanwhile.

    Raises:
        UnsupportedError: they differ.
    """
    with torch.no_grad():
        found = program(images)
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        # The library's ReLU after a convolution makes 0 of NaN: a broken network would look sound.
        raise UnsupportedError("its logits would be finite elsewhere than those of the network")
    error, norm = (found - expected).norm(), expected.norm()  # the norm of a dead network's is 0
    tolerance = max(TOLERANCE[precision], TF32_TOLERANCE if tf32 else 0)
    if finite.all() and not error <= tolerance * norm:
        raise UnsupportedError(f"its logits would differ by {float(error / norm):.1g} of their norm")


def check_gradient(
    network: Network, program: Network, images: Tensor, graph: Network | None, tf32: bool, reuses: bool = True
) -> None:
    """Compare the gradient of a program with the network's, alone and while that of a second pass is pending.

    Args:
        network: what the program was made of.
        program: what is compared with it.
        images: of the shape that it was made for.
        graph: if the program computes in bfloat16, the graph that it was made from, in float32.
        tf32: whether float32 may be TF32 meanwhile.
        reuses: whether passes of the program share memory, so that a second one could spoil the first.

    Raises:
        UnsupportedError: they differ.
    """
    images = images.detach()
    expected, tolerance = expected_gradient(network, images)
    tolerance = TF32_GRADIENT_TOLERANCE if tf32 else tolerance
    passes = gradients(program, images)
    if reuses:
        passes.append(gradients(program, images, images.flip(-1))[0])
    norm = expected.norm()
    for found in passes if graph is None else gradients(graph, images):
        error = (found - expected).norm()
        if norm.isfinite() and not error <= tolerance * norm:
            raise UnsupportedError(
                f"its gradients would differ by {float(error / norm):.1g} of their norm, as where a network stops them "
                "(detach, no_grad) or makes its own"
            )
    if norm.isfinite() and not all(found.isfinite().all() for found in passes):
        raise UnsupportedError("its gradients would not be finite")


def expected_gradient(network: Network, images: Tensor) -> tuple[Tensor, float]:
    """The gradient of the network itself, and how far that of a graph may be away, relative to its norm."""
    stops = _Stops()

    def watched(images: Tensor) -> Tensor:
        with stops:
            return network(images)

    (expected,) = gradients(watched, images)
    return expected, STOPPED_TOLERANCE if stops.seen else GRADIENT_TOLERANCE


class _Stops(TorchFunctionMode):
    """Sees whether anything that depends on the images loses its gradient.

    Inside an `autograd.Function` gradients are off, so that it is seen as well.
    """

    seen = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        if not self.seen and not name.startswith("new_") and not name.endswith("_like"):
            found = [one for one in tree_leaves(result) if isinstance(one, Tensor) and one.is_floating_point()]
            if found and not any(one.requires_grad for one in found):
                self.seen = any(isinstance(one, Tensor) and one.requires_grad for one in tree_leaves((args, kwargs)))
        return result


def gradients(network: Network, *images: Tensor) -> list[Tensor]:
    """Gradients of several images of a network; all forward passes come before the first backward pass."""
    with torch.enable_grad():
        given = [one.clone().requires_grad_() for one in images]
        results = [network(one).square().mean() for one in given]
        return [torch.autograd.grad(result, one)[0] for result, one in zip(results, given, strict=True)]

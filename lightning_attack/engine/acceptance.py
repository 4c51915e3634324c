"""Is a program the network that it was made of? Compared on the first images of each shape, before it is used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_attack.engine.graphs import UnsupportedError
from lightning_attack.engine.support import Precision

Network = Callable[[Tensor], Tensor]

TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bf16": 0.2}
"""Largest difference between the first logits of each shape and those of the network itself, relative to their norm."""

TF32_TOLERANCE = 3e-2
"""The same for compiled programs where TF32 is allowed. Other programs are compared in full float32."""

GRADIENT_TOLERANCE = 0.1
"""Largest difference between the first gradients, relative to their norm. Rounding moves values across the kinks of
ReLU; a gradient made of memory that was overwritten has nothing in common with the right one. In bfloat16, gradients of
untrained networks have little in common with the exact ones either: they must be finite."""


def check_logits(network: Network, program: Network, images: Tensor, precision: Precision, tf32: bool) -> None:
    """Compare the logits of a program with the network's. A network with random numbers may well not pass.

    Args:
        network: what the program was made of.
        program: what is compared with it.
        images: of the shape that it was made for.
        precision: what it computes in.
        tf32: whether float32 may be TF32 meanwhile.

    Raises:
        UnsupportedError: they differ.
    """
    with torch.no_grad():
        expected, found = network(images), program(images)
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        # The library's ReLU after a convolution makes 0 of NaN: a broken network would look sound.
        raise UnsupportedError("its logits would be finite elsewhere than those of the network")
    error, norm = (found - expected).norm(), expected.norm()  # the norm of a dead network's is 0
    tolerance = max(TOLERANCE[precision], TF32_TOLERANCE if tf32 else 0)
    if finite.all() and not error <= tolerance * norm:
        raise UnsupportedError(f"its logits would differ by {float(error / norm):.1g} of their norm")


def check_gradient(network: Network, program: Network, images: Tensor, precision: Precision, tf32: bool) -> None:
    """Compare the gradient of a program with the network's, alone and while that of a second pass is pending.

    The arguments are those of `check_logits`.

    Raises:
        UnsupportedError: they differ.
    """
    images = images.detach()
    (expected,) = _gradients(network, images)
    tolerance = GRADIENT_TOLERANCE * (3 if tf32 else 1)
    for found in (*_gradients(program, images), _gradients(program, images, images.flip(-1))[0]):
        error, norm = (found - expected).norm(), expected.norm()
        right = error <= tolerance * norm if precision == "float32" else error.isfinite()
        if norm.isfinite() and not right:
            raise UnsupportedError(f"its gradients would differ by {float(error / norm):.1g} of their norm")


def _gradients(network: Network, *images: Tensor) -> list[Tensor]:
    """Gradients of several images of a network; all forward passes come before the first backward pass."""
    with torch.enable_grad():
        given = [one.clone().requires_grad_() for one in images]
        results = [network(one).square().mean() for one in given]
        return [torch.autograd.grad(result, one)[0] for result, one in zip(results, given, strict=True)]

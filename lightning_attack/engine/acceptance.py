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

GRADIENT_TOLERANCE = 0.02
"""Largest difference between the first gradients, relative to their norm. Rounding moves values across the kinks of
ReLU, which makes 0.001 of the norm at most (measured). What a graph does not know makes more: gradients that a network
stops (`detach`, `no_grad`) or makes itself (`torch.autograd.Function`), and memory that was overwritten. In bfloat16,
gradients of untrained networks have little in common with the exact ones either: they must be finite."""

TF32_GRADIENT_TOLERANCE = 0.3
"""The same for compiled programs where TF32 is allowed."""


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


def check_gradient(
    network: Network, program: Network, images: Tensor, precision: Precision, tf32: bool, reuses: bool = True
) -> None:
    """Compare the gradient of a program with the network's, alone and while that of a second pass is pending.

    The arguments are those of `check_logits`, and `reuses`: whether passes of the program share memory, so that a
    second one could spoil the first.

    Raises:
        UnsupportedError: they differ.
    """
    images = images.detach()
    (expected,) = gradients(network, images)
    tolerance = TF32_GRADIENT_TOLERANCE if tf32 else GRADIENT_TOLERANCE
    passes = gradients(program, images)
    if reuses:
        passes.append(gradients(program, images, images.flip(-1))[0])
    for found in passes:
        error, norm = (found - expected).norm(), expected.norm()
        right = error <= tolerance * norm if precision == "float32" else error.isfinite()
        if norm.isfinite() and not right:
            raise UnsupportedError(
                f"its gradients would differ by {float(error / norm):.1g} of their norm, as where a network stops them "
                "(detach, no_grad) or makes its own"
            )


def gradients(network: Network, *images: Tensor) -> list[Tensor]:
    """Gradients of several images of a network; all forward passes come before the first backward pass."""
    with torch.enable_grad():
        given = [one.clone().requires_grad_() for one in images]
        results = [network(one).square().mean() for one in given]
        return [torch.autograd.grad(result, one)[0] for result, one in zip(results, given, strict=True)]

"""Logits and gradients of a network and of what it was prepared to, and how far they are apart."""

import copy

import torch

from lightning_attack.engine import prepare


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def both(network, images, weights=None):
    """Logits, and the gradient of their weighted sum."""
    images = images.clone().requires_grad_()
    logits = network(images)
    weights = noise(*logits.shape, seed=1) - 0.4 if weights is None else weights
    return logits.detach(), torch.autograd.grad(logits, images, weights.to(logits.dtype))[0]


def exact(network, images, weights=None):
    """What the network itself gives in float64."""
    return both(copy.deepcopy(network).double(), images.double(), weights)


def apart(found, expected):
    """Relative error in the Euclidean norm."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def check(network, images, logits=1e-6, gradient=1e-6, **settings):
    """Compare a prepared network with float64, in both ways to call it; returns the prepared one."""
    expected, expected_gradient = exact(network, images)
    fast = prepare(network, **settings)
    found, found_gradient = both(fast, images)
    with torch.no_grad():
        alone = fast(images)
    assert fast._programs, "the network itself was run"
    assert all(fast._programs.values()), "the network itself was run"
    assert found.dtype == found_gradient.dtype == torch.float32
    assert found.shape == expected.shape
    assert found_gradient.shape == images.shape
    assert apart(found, expected) <= logits
    assert apart(alone, expected) <= logits
    assert apart(found_gradient, expected_gradient) <= gradient
    return fast


def operators(fast, images):
    """What the graphs of a prepared network call: for the logits alone, forward, and backward; but for types."""
    both(fast, images)
    with torch.no_grad():
        fast(images)
    (program,) = fast._programs.values()
    halves = program._halves
    forward, backward = halves.forward, (halves.resized, halves.back)
    return tuple([str(getattr(node.target, "__name__", node.target)) for graph in graphs for node in graph.graph.nodes
                  if node.op == "call_function" and "_to_copy" not in str(node.target)]
                 for graphs in ([program._logits], [forward], backward))  # fmt: skip

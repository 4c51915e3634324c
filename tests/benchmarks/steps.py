"""One step of PGD in several ways, each run in a process of its own that is told when."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.engine import cross_entropy, keep_freed_memory, prepare
from lightning_attack.predict.cost import PeakMemory
from tests.benchmarks.networks import build, convolution_operations

EPS, STEP = 8 / 255, 2 / 255
Shares = dict[str, float]


def naive(network: nn.Module, images: Tensor, labels: Tensor, start: Tensor) -> tuple[Tensor, Shares]:
    """What a loop looks like that knows nothing of frozen networks; its weights ask for gradients."""
    x = start.clone().requires_grad_()
    (grad,) = torch.autograd.grad(_naive_loss(network(x), labels), x)
    return _stepped(x, grad, images), {}


def backward(network: nn.Module, images: Tensor, labels: Tensor, start: Tensor) -> tuple[Tensor, Shares]:
    """The same with `loss.backward()`, as many loops have it: weights get gradients too."""
    x = start.clone().requires_grad_()
    _naive_loss(network(x), labels).backward()
    assert x.grad is not None
    return _stepped(x, x.grad, images), {}


def engine(network: nn.Module, images: Tensor, labels: Tensor, start: Tensor) -> tuple[Tensor, Shares]:
    """With a prepared network and the loss of the engine."""
    begin = time.perf_counter()
    x = start.clone().requires_grad_()
    logits = network(x)
    after_forward = time.perf_counter()
    values = logits.detach().requires_grad_()
    losses, log_probs = cross_entropy(values, labels)
    right = -losses.detach() >= log_probs.amax(1)
    (at_logits,) = torch.autograd.grad(losses, values, right.float() + 0.5 * (~right))
    del losses, log_probs, right
    after_loss = time.perf_counter()
    (grad,) = torch.autograd.grad(logits, x, at_logits)
    after_backward = time.perf_counter()
    result = _stepped(x, grad, images)
    end = time.perf_counter()
    loss, rest = after_loss - after_forward, end - after_backward
    return result, {"loss": loss, "rest": rest, "network": end - begin - loss - rest}


def torchattacks_step(network: nn.Module, images: Tensor, labels: Tensor, start: Tensor) -> tuple[Tensor, Shares]:
    """A step of the PGD of that package, which takes label maps as they are."""
    import torchattacks

    return torchattacks.PGD(network, EPS, STEP, steps=1, random_start=False)(start, labels.clamp(max=1)), {}


def _naive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=255)
    right = logits.argmax(1) == labels
    return (losses * right).sum() + 0.5 * (losses * ~right).sum()


def _stepped(x: Tensor, grad: Tensor, images: Tensor) -> Tensor:
    x = x.detach() + STEP * grad.sign()
    return (images + (x - images).clamp(-EPS, EPS)).clamp(0, 1)


STEPS: dict[str, Callable[..., tuple[Tensor, Shares]]] = {
    "naive": naive, "backward": backward, "torchattacks": torchattacks_step, "float32": engine, "bf16": engine,
}  # fmt: skip


def work(connection: Connection, ways: tuple[str, ...], threads: int) -> None:
    """Build the networks it is told to, and take a step in the ways it is told to, until it is told nothing more.

    A message is "build NETWORK", "step WAY", which is answered by (seconds, shares), or "memory WAY", which is answered
    by the MB that a step adds at its peak; "count WAY" asks for the operations of the network's convolutions.
    """
    torch.set_num_threads(threads)
    if set(ways) & {"float32", "bf16"}:
        keep_freed_memory()
    steps: dict[str, partial[tuple[Tensor, Shares]]] = {}
    while message := connection.recv():
        kind, name = message.split(" ")
        if kind == "build":
            steps = _steps(name, ways)
            connection.send(None)
        elif kind == "memory":
            connection.send(added_memory(steps[name]))
        elif kind == "count":
            connection.send(convolution_operations(*steps[name].args[:2]))
        else:
            begin = time.perf_counter()
            _, shares = steps[name]()
            connection.send((time.perf_counter() - begin, shares))


def _steps(name: str, ways: tuple[str, ...]) -> dict[str, partial[tuple[Tensor, Shares]]]:
    """The ways to take a step, taken once, so that all that is done only once is done; plain ways share it."""
    network, images, labels = build(name)
    steps: dict[str, partial[tuple[Tensor, Shares]]] = {}
    for way in ways:
        prepared = prepare(network, precision=way) if way in ("float32", "bf16") else network.requires_grad_(True)
        steps[way] = partial(STEPS[way], prepared, images, labels, images)
        if prepared is not network or len(steps) == 1:
            steps[way]()
    return steps


def added_memory(step: Callable[[], object]) -> float | None:
    """MB by which the process grows in a step, beyond what it has before; None where the system does not say."""
    peak, here = PeakMemory(), torch.device("cpu")
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    peak.begin(here)
    step()
    added = peak.end(here)
    return None if added is None else added / 1e6

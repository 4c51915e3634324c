"""`Watch`: whether a network is still the one that its graphs were made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_attack.engine.content import content


class Watch:
    """Sees changes of a network's weights, modes and hooks.

    Inside `trusted()` weights and modes are looked at once, and new hooks are counted: looking at each module of a
    network takes Python longer than a GPU needs for a pass.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._hooks, self._weights, self._digest = _hooks(network), _weights(network), b""
        self._trusting = self._known = False
        self._tables: list[dict[int, object]] = [{}]
        self._own: list[dict[str, object]] = [{}]

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Inside the `with` block, only hooks may change."""
        outer, self._trusting, self._known = self._trusting, True, False
        try:
            yield
        finally:
            self._trusting, self._known = outer, False

    def known(self) -> bool:
        """Whether `changed` and the modes have been looked at, and cannot have changed since."""
        before = self._known
        self._known = self._trusting
        return before

    def hooked(self) -> bool:
        """Whether any module has more or fewer hooks than at first, or another `forward` of its own."""
        if self._known and not any(self._tables) and not any("forward" in own for own in self._own):
            return False
        if _hooks(self._network) != self._hooks:
            return True
        modules = list(self._network.modules())
        self._tables, self._own = [table for module in modules for table in _tables(module)], [*map(vars, modules)]
        return False

    def changed(self) -> bool:
        """Whether the weights have changed since this was asked last.

        If they are somewhere else only (as after a run, when they are moved to the host and back), they have not: where
        `remember` was called, their content is compared.
        """
        weights = _weights(self._network)
        if weights == self._weights:
            return False
        self._weights = weights
        if not self._digest:
            return True
        before, self._digest = self._digest, b""
        self.remember()
        return before != self._digest

    def remember(self) -> None:
        """Keep a hash of the weights."""
        if not self._digest:
            self._digest = _digest(self._network)


def _weights(network: nn.Module) -> list[tuple[int, int]]:
    """Which tensors the network has, and how often each has been written to."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in _tensors(network)]


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _digest(network: nn.Module) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in _tensors(network):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(content(tensor))
    return digest.digest()


def _tables(module: nn.Module) -> tuple[dict[int, object], ...]:
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks  # type: ignore[return-value]


def _hooks(network: nn.Module) -> list[tuple[object, ...]]:
    """Which hooks each module has, and whether it has a `forward` of its own, as some recorders give it."""
    return [
        (*(key for table in _tables(module) for key in (*table, -1)), vars(module).get("forward"))
        for module in network.modules()
    ]

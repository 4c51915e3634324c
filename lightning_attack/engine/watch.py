"""`Watch`: whether a network is still the one that its graphs were made of."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_attack.engine.content import content

_PLAIN = (int, float, str, type(None))


class Watch:
    """Sees changes of a network's modules, weights, modes and hooks.

    Inside `trusted()` they are looked at once, and new hooks are counted: looking at each module of a network takes
    Python longer than a GPU needs for a pass. What cannot be seen at a glance is compared when there is a `doubt`.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = list(network.modules())
        self._hooks, self._state, self._digest = _hooks(self._modules), glance(network), b""
        self._trusting = self._known = self._doubted = False
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
        modules = list(self._network.modules())
        hooks = _hooks(modules)
        if not all(map(operator.is_, modules, self._modules)) or len(modules) != len(self._modules):
            # Modules that took the place of others have the hooks that they came with.
            first = dict(zip(map(id, self._modules), self._hooks, strict=True))
            self._hooks = [first.get(id(module), now) for module, now in zip(modules, hooks, strict=True)]
            self._modules = modules
        if hooks != self._hooks:
            return True
        self._tables, self._own = [table for module in modules for table in _tables(module)], [*map(vars, modules)]
        return False

    def changed(self) -> bool:
        """Whether weights or modules have changed since this was asked last.

        If they are somewhere else only (as after a run, when they are moved to the host and back), they have not: where
        `remember` was called, their content is compared.
        """
        state = glance(self._network)
        doubted, self._doubted = self._doubted and bool(self._digest), False
        if state == self._state and not doubted:
            return False
        self._state = state
        if not self._digest:
            return True
        before, self._digest = self._digest, b""
        self.remember()
        return before != self._digest

    def doubt(self) -> None:
        """Compare the content when `changed` is asked next: `weight.data.copy_`, `norm.eps = ...` leave no trace."""
        self._doubted = True

    def remember(self) -> None:
        """Keep a hash of the weights, and of the modules' settings."""
        if not self._digest:
            self._digest = _digest(self._network)


def glance(network: nn.Module) -> list[tuple[object, ...]]:
    """Which modules and tensors the network has, and how often each tensor has been written to."""
    modules = [(id(module), type(module)) for module in network.modules()]
    tensors = [(one.data_ptr(), 0 if one.is_inference() else one._version) for one in _tensors(network)]
    return [*modules, *tensors]


def appearance(network: nn.Module) -> tuple[object, ...]:
    """All that can be seen of a network's `forward` without reading its weights: `glance`, hooks, settings of modules.

    Hooks of the network itself are called around its `forward`, and do not count.
    """
    modules = list(network.modules())
    return glance(network), vars(network).get("forward"), _hooks(modules[1:]), [*map(_settings, modules)]


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _digest(network: nn.Module) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in _tensors(network):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(content(tensor))
    for module in network.modules():
        digest.update(f"{type(module)} {id(type(module))} {_settings(module)}".encode())
    return digest.digest()


def _settings(module: nn.Module) -> dict[str, object]:
    """What a module was told, as `eps` and `inplace`: its numbers, words and tuples of these."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in ("training", "_is_full_backward_hook") and is_plain(value)
    }


def is_plain(value: object) -> bool:
    """Whether a value is a number, a word, or a tuple or list of these."""
    return all(map(is_plain, value)) if isinstance(value, tuple | list) else isinstance(value, _PLAIN)


def _tables(module: nn.Module) -> tuple[dict[int, object], ...]:
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks  # type: ignore[return-value]


def _hooks(modules: Sequence[nn.Module]) -> list[tuple[object, ...]]:
    """Which hooks each module has, and whether it has a `forward` of its own, as some recorders give it."""
    return [
        (*(key for table in _tables(module) for key in (*table, -1)), vars(module).get("forward")) for module in modules
    ]

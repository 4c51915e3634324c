"""`Kept`: the graphs of a network, kept with it for as long as it stays as it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from lightning_attack.attacks.base import describe
from lightning_attack.attacks.errors import AttackError
from lightning_attack.engine.watch import appearance, is_plain

GRAPHS = 32
"""Number of graphs that are kept for a network: of each shape of images one as it is and one for each list of
transforms; the least recently used one is dropped first."""

Graph = TypeVar("Graph")


class Kept(Generic[Graph]):
    """The graphs of a network, or why there is none, and what the network was when they were made."""

    def __init__(self, state: object) -> None:
        self.state = state
        self._graphs: OrderedDict[Hashable, Graph | AttackError] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Graph]) -> Graph:
        """The graph that is kept under a key, or else is made.

        Raises:
            AttackError: it cannot be made.
        """
        if key not in self._graphs:
            try:
                self._graphs[key] = make()
            except AttackError as error:
                self._graphs[key] = error  # it would fail again, after as long a time
            while len(self._graphs) > GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self.last()

    def last(self) -> Graph:
        """The graph that was used last.

        Raises:
            AttackError: it could not be made.
        """
        found = next(reversed(self._graphs.values()))
        if isinstance(found, AttackError):
            raise found
        return found


_KEPT: WeakKeyDictionary[nn.Module, Kept[Any]] = WeakKeyDictionary()


def kept(network: nn.Module) -> Kept[Any]:
    """The graphs of a network as it is now: others are dropped."""
    state = appearance(network)
    if network not in _KEPT or _KEPT[network].state != state:
        _KEPT[network] = Kept(state)
    return _KEPT[network]


def identity(transform: object) -> Hashable:
    """What tells a transform from others: its class, its settings, and the objects among these.

    Example:
        >>> class Scaled:
        ...     def __init__(self, function):
        ...         self._function = function
        >>> identity(Scaled(abs)) == identity(Scaled(abs)), identity(Scaled(abs)) == identity(Scaled(round))
        (True, False)
    """
    settings = [
        (name, repr(value) if is_plain(value) else _Object(value)) for name, value in sorted(vars(transform).items())
    ]
    # The class itself, not its name: one that a notebook defines anew is another one. What is described are the values
    # of objects too, such as those of a tensor that is written to.
    return type(transform), repr(describe(transform)), *settings


class _Object:
    """An object as a key: it is equal to itself alone, and stays alive so that no other one takes its place."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)

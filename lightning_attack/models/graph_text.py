"""`graph_text`: what a traced graph computes, as text that does not depend on where and how it was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.layout, torch.memory_format)


def graph_text(graph: fx.Graph) -> str:
    """The nodes that an output depends on, in their order: kind, what is called, and arguments.

    Nodes go by their place, not by their names, tensors and graphs inside by theirs (`@weight`). What no output depends
    on is left out: assertions and guards, which other versions of torch write in other ways. So is all that is noted at
    nodes, such as lines of code.

    Example:
        >>> def twice(x):
        ...     print_me = x + 1
        ...     return x * 2
        >>> print(graph_text(fx.symbolic_trace(twice).graph))
        0 placeholder x () {}
        1 call_function _operator.mul (%0, 2) {}
        2 output output (%1) {}
    """
    used = _used(graph)
    shown = [node for node in graph.nodes if node in used and node.op != "get_attr"]
    places = {node: place for place, node in enumerate(shown)}
    lines = [
        f"{place} {node.op} {_target(node)} {_text(node.args, places)} {_text(node.kwargs, places)}"
        for node, place in places.items()
    ]
    return "\n".join(lines)


def _used(graph: fx.Graph) -> set[fx.Node]:
    found: set[fx.Node] = set()
    # What is given counts whether it is used or not: it is the order of the arguments.
    # What changes tensors in place counts too: an output may depend on it without an edge, as after `y[:, 0] = 0`.
    left = [node for node in graph.nodes if node.op in ("output", "placeholder") or _changes(node)]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += node.all_input_nodes
    return found


def _changes(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _target(node: fx.Node) -> str:
    """What a node calls or takes; functions by module and name, operators of torch as `aten.add.Tensor`."""
    target = node.target
    if isinstance(target, str):
        return target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', type(target).__qualname__)}"


def _text(value: Any, places: Mapping[fx.Node, int]) -> str:
    """An argument; of what is neither plain nor made of plain values the type: its text may hold an address.

    A device is not plain here: a network is the same wherever it runs.
    """
    if isinstance(value, fx.Node):
        return f"%{places[value]}" if value in places else f"@{value.target}"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, slice):
        return f"slice{_text((value.start, value.stop, value.step), places)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(_items(value, places))}}}"
    if isinstance(value, Sequence):
        return f"({', '.join(_text(one, places) for one in value)})"
    return type(value).__qualname__


def _items(value: Mapping[Any, Any], places: Mapping[fx.Node, int]) -> Iterator[str]:
    yield from (f"{key}: {_text(one, places)}" for key, one in sorted(value.items(), key=lambda item: str(item[0])))

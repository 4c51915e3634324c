"""Helpers for graphs of ATen operators: constants, shapes, and cleaning up after a rewrite."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

BUILDING = threading.RLock()
"""Held while graphs are made: tracing changes torch for all threads."""


class UnsupportedError(Exception):
    """A network that the engine cannot rewrite; the message names the operator or says why."""


def shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of what a node computes."""
    return tuple(node.meta["val"].shape)


def dtype(node: fx.Node) -> torch.dtype:
    """The type of what a node computes."""
    kind: torch.dtype = node.meta["val"].dtype
    return kind


def outputs(module: fx.GraphModule) -> list[fx.Node]:
    """The nodes whose results a graph returns."""
    found: Any = next(node for node in module.graph.nodes if node.op == "output").args[0]
    return list(found) if isinstance(found, tuple | list) else [found]


def arguments(node: fx.Node) -> tuple[Any, ...]:
    """The positional arguments of a call, of whatever types the operator takes."""
    return node.args


def is_tensor(node: object) -> bool:
    """Whether this is a node that computes one tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor)


def calls(graph: fx.Graph, *targets: Callable[..., Any]) -> list[fx.Node]:
    """The nodes that call one of these operators, in order of execution."""
    return [node for node in graph.nodes if node.op == "call_function" and node.target in targets]


def constant(module: fx.GraphModule, node: object) -> Tensor | None:
    """The tensor behind a node that reads a constant of the module, without history; None for all other nodes."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = getattr(module, str(node.target))
    return value.detach() if isinstance(value, Tensor) else None


def add_constant(module: fx.GraphModule, before: fx.Node, value: Tensor) -> fx.Node:
    """A node, placed before another one, that reads a new constant of the module."""
    known: fx.Node
    for known in module.graph.nodes:
        if known.op == "get_attr" and getattr(module, str(known.target)) is value:
            if before < known:
                before.prepend(known)
            return known
    number = 0
    while hasattr(module, f"constant{number}"):
        number += 1
    module.register_buffer(f"constant{number}", value)
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(f"constant{number}")
    node.meta["val"] = value
    return node


def call(
    before: fx.Node, like: Tensor | tuple[Tensor, ...], target: Callable[..., Any], *args: Any, **kwargs: Any
) -> fx.Node:
    """A node, placed before another one, that calls an operator; `like` has the shape and the type of its result."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, args, kwargs)
    node.meta["val"] = like
    return node


def replace(old: fx.Node, new: fx.Node) -> None:
    """Let all users of one node use another in its place, and erase it."""
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that uses a node's result, once; None if there are others."""
    users, times = list(node.users), 0

    def count(used: fx.Node) -> fx.Node:
        nonlocal times
        times += used is node
        return used

    if len(users) != 1:
        return None
    fx.map_arg((users[0].args, users[0].kwargs), count)
    return users[0] if times == 1 else None


def cleaned(module: fx.GraphModule) -> fx.GraphModule:
    """The module without nodes that nothing needs and without constants that nothing reads."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return fx.GraphModule(module, module.graph)


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """A graph of its own for the same constants, to be rewritten."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    return fx.GraphModule(module, graph)

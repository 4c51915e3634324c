"""`SourceGraph`: the graph of a network's forward pass, in which source transforms look for nodes and change them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, fx

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.source_transforms.channels import CONVOLUTIONS, MATRICES, VIEWS, channel_axes
from lightning_attack.attacks.source_transforms.run import Run

Operator = Any
"""An operator of ATen in all of its variants, such as `torch.ops.aten.relu`."""

aten = torch.ops.aten
WEIGHTED = (*CONVOLUTIONS, *MATRICES)
"""Operators that count as layers: convolutions and products with a matrix of weights."""

Change = Callable[..., Tensor]
"""What a node computed, and further values, to what the rest of the network is given instead."""
LiveChange = Callable[..., Tensor]
"""The same with a `Run` and the node's key before them."""


class SourceGraph:
    """A network's forward pass as a graph of ATen operators for one shape of images.

    The depth of a node is the share of the network's convolutions and matrix products (with weights) that come before
    it, in the order in which they run: 0 for the first, 1 behind the last. Those of the decoder count.

    Args:
        module: the graph; it is changed.
        name: name of the network, for messages.
        number: tells the networks of an ensemble apart.
    """

    def __init__(self, module: fx.GraphModule, name: str, number: int = 0) -> None:
        self.module, self.name, self.number = module, name, number
        self.run: Run | None = None
        self._offered: set[fx.Node] = set()
        self._last: dict[fx.Node, fx.Node] = {}  # of nodes that are followed by changes, the last of these
        self._at_end: list[Callable[[], None]] = []
        (self._images,) = (node for node in module.graph.nodes if node.op == "placeholder")
        self._depths: dict[fx.Node, float] = {}
        self._axes = channel_axes(module.graph)
        layers = [node for node in module.graph.nodes if operator(node) in WEIGHTED]
        passed, known = 0, set(layers)
        for node in module.graph.nodes:
            self._depths[node] = passed / max(len(layers), 1)
            passed += node in known

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return shape_of(self._images)[2], shape_of(self._images)[3]

    @property
    def offered(self) -> dict[str, float]:
        """Names and depths of the nodes that `find` chose from, in order of execution, see `changeable_nodes`."""
        return {node.name: depth for node, depth in self._depths.items() if node in self._offered}

    def depth(self, node: fx.Node) -> float:
        """Share of the layers that run before the node, in [0, 1]."""
        return self._depths[node]

    def channels(self, node: fx.Node) -> int:
        """The axis of a node's channels: 1 of maps (B, C, h, w), the last of tokens (B, N, C) and maps (B, h, w, C)."""
        axes = len(shape_of(node))
        return self._axes.get(node, 1 if axes == 4 else axes - 1)

    def is_of_images(self, node: fx.Node) -> bool:
        """Whether a node's values are maps or tokens whose first axis is the images."""
        return shape_of(node)[0] == shape_of(self._images)[0] and len(shape_of(node)) > 2

    def all(self, *operators: Operator) -> list[fx.Node]:
        """The nodes that call one of these operators, in order of execution."""
        return [node for node in self.module.graph.nodes if operator(node) in operators]

    def find(
        self,
        asker: object,
        what: str,
        found: Iterable[fx.Node],
        start: float = 0.0,
        nodes: Sequence[str] = (AUTO,),
        named: Iterable[fx.Node] | None = None,
    ) -> list[fx.Node]:
        """Of the nodes that suit a transform those that the user wants: from a depth on, or by name.

        Args:
            asker: the transform, for messages.
            what: the nodes that it can change, in words, such as `ReLU`.
            found: these nodes.
            start: depth from which they are taken.
            nodes: names of nodes, which are then taken instead, wherever they are; `auto` stands for no names.
            named: the nodes that may be taken by name, if those are others than `found`.

        Raises:
            AttackError: there is none, or no node of such a name.
        """
        found, transform = list(found), type(asker).__name__
        names = {node.name: node for node in (found if named is None else named)}
        self._offered.update(names.values())
        if list(nodes) == [AUTO]:
            if not (wanted := [node for node in found if self.depth(node) >= start]):
                raise AttackError(self._nothing(transform, what, found, start))
            return wanted
        for name in nodes:
            if name not in names:
                near = get_close_matches(name, names, n=3, cutoff=0)
                others = f"the nearest are {', '.join(sorted(near))}" if near else "it has none"
                raise AttackError(
                    f"{transform} changes {what}; '{self.name}' has none of the name '{name}' ({others}). Nodes have "
                    "the names of its traced graph, which `changeable_nodes` lists; 'auto' chooses by their depth"
                )
        return [node for name, node in names.items() if name in nodes]

    def _nothing(self, transform: str, what: str, found: list[fx.Node], start: float) -> str:
        """Why a transform has nothing to change, and what can be done."""
        if found:
            last = max(map(self.depth, found))
            return (
                f"{transform} changes {what} from {start:.2f} of the depth on; the last of '{self.name}' is at "
                f"{last:.2f}. Set start to that or less"
            )
        known = Counter(str(operator(node)).removeprefix("aten.") for node in self.module.graph.nodes)
        known.pop("None", None)
        most = ", ".join(f"{name} ({count})" for name, count in known.most_common(12))
        return (
            f"{transform} changes {what}, and '{self.name}' has none; it computes {most}. Take another source "
            "transform, or a source that has them"
        )

    def follow(self, node: fx.Node, change: Change, *others: fx.Node) -> fx.Node:
        """From now on the rest of the network is given `change(value of node, *values of others)`.

        Of several changes of a node each is given what the one before has made of its value.

        Args:
            node: computes a tensor.
            change: returns a tensor of the same shape and type.
            others: nodes that have run when `node` has.

        Returns:
            The change as a node of the graph.
        """
        return self._behind(node, callable_by_a_graph(change), others)

    def follow_live(self, node: fx.Node, change: LiveChange, purpose: str) -> None:
        """The same with `change(run, key, value of node)`, which may take random numbers and clean features of `run`.

        Args:
            node: computes a tensor.
            change: returns a tensor of the same shape and type.
            purpose: tells changes of the same node apart.
        """
        key = f"source {self.number} {node.name} {purpose}"
        self._behind(node, _Live(self, change, key).apply, ())

    def before(self, user: fx.Node, node: fx.Node, change: Change, place: int | None = None) -> None:
        """From now on one user of a node is given `change(value of node)`; the others are given what they were.

        Args:
            user: takes what the node computes.
            node: computes a tensor.
            change: returns a tensor of the same shape and type.
            place: of the user's arguments the one that is changed; None changes all that are the node.

        Raises:
            ValueError: place is None, and the user does not take the node.
        """
        if place is None and node not in user.all_input_nodes:
            raise ValueError(f"'{user.name}' does not take what '{node.name}' computes, so nothing would change")
        new = self._insert(node, callable_by_a_graph(change), (), [user] if place is None else [])
        if place is not None:
            user.update_arg(place, new)

    def at_end(self, change: Callable[[], None]) -> None:
        """Call a function when all transforms have made their changes, such as one that copies what these have made."""
        self._at_end.append(change)

    def _behind(self, node: fx.Node, function: Callable[..., Tensor], others: Sequence[fx.Node]) -> fx.Node:
        self._last[node] = self._insert(self._last.get(node, node), function, others)
        return self._last[node]

    def _insert(
        self,
        node: fx.Node,
        function: Callable[..., Tensor],
        others: Sequence[fx.Node],
        users: Sequence[fx.Node] | None = None,
    ) -> fx.Node:
        users = list(node.users) if users is None else users
        with self.module.graph.inserting_after(node):
            new = self.module.graph.call_function(function, (node, *others))
        new.meta["val"], self._depths[new] = node.meta["val"], self._depths[node]
        if node in self._axes:
            self._axes[new] = self._axes[node]
        for user in users:
            user.replace_input_with(node, new)
        return new

    def layers(self) -> list[fx.Node]:
        """What the network's convolutions and matrix products with weights compute, in order of execution.

        Each is a tensor whose first axis is the images: where a product took all tokens of all images as one matrix, it
        is the node that gives them back to their images. Products that are divided in another way are left out.
        """
        found = []
        for node in self.all(*WEIGHTED):
            shaped = [user for user in node.users if operator(user) in VIEWS]
            whole = [one for one in (node, *shaped) if self.is_of_images(one)]
            found += whole[:1]
        return found

    def written(self) -> str:
        """All nodes and what is still to be changed in the end, to see whether something was changed since."""
        return f"{self.module.graph} and {len(self._at_end)} changes"

    def ready(self) -> fx.GraphModule:
        """The graph with all changes, to be called."""
        for change in self._at_end:
            change()
        self.module.graph.eliminate_dead_code()
        self.module.graph.lint()
        self.module.recompile()
        return self.module


class _Plain:
    """A change that needs nothing but values of nodes."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def apply(self, value: Tensor, *others: Tensor) -> Tensor:
        return self._change(value, *others)


class _Live:
    """A change that is given the run and its key; while clean features are recorded, it only records."""

    def __init__(self, graph: SourceGraph, change: LiveChange, key: str) -> None:
        self._graph, self._change, self._key = graph, change, key

    def apply(self, value: Tensor) -> Tensor:
        run = self._graph.run
        assert run is not None  # `TransformedSource` sets it for each pass
        if run.recording:
            run.keep(self._key, value)
            return value
        return self._change(run, self._key, value)


def callable_by_a_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a bound method, which has the name that a graph's code needs."""
    return _Plain(function).apply


def operator(node: fx.Node) -> Operator:
    """The operator that a node calls, in all of its variants; None for all other nodes."""
    return getattr(node.target, "overloadpacket", None) if node.op == "call_function" else None


def is_change(node: fx.Node) -> bool:
    """Whether a node was put into the graph by a source transform."""
    return isinstance(getattr(node.target, "__self__", None), _Plain | _Live)


def above(node: Any) -> set[fx.Node]:
    """A node and all that it is computed from."""
    found: set[fx.Node] = set()
    todo: list[fx.Node] = [node]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += one.all_input_nodes
    return found


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of what a node computes."""
    return tuple(node.meta["val"].shape)

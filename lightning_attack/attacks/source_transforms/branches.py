"""`keep_length`: the gradient through a residual branch keeps its length, whatever is changed inside."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lightning_attack.attacks.source_transforms.connections import blocks, branch_of
from lightning_attack.attacks.source_transforms.graph import SourceGraph, callable_by_a_graph
from lightning_attack.attacks.source_transforms.surrogate import with_gradient_of


def keep_length(graph: SourceGraph, changes: Collection[fx.Node]) -> None:
    """Scale the gradient through each residual branch to the length that it has without some changes.

        z' = z + f(z):   backward  1 + |g| / |g'| f'(z),   g, g' = what f hands back without and with the changes

    Lengths are Euclidean and of each image. Several branches of one skip connection are scaled together. Of a residual
    connection inside another one's branch, only the outer one is scaled. A branch with changes is computed a second
    time for this.

    Args:
        graph: all transforms may still change it; it is rewritten after the last of them.
        changes: nodes that `SourceGraph.follow` made; branches without any stay as they are.
    """
    changed = {change.args[0] for change in changes}
    together: dict[fx.Node, list[tuple[fx.Node, fx.Node]]] = {}
    for addition, branch, total in blocks(graph):
        together.setdefault(total, []).append((addition, branch))
    for branches in together.values():
        if any(branch_of(addition, branch) & changed for addition, branch in branches):
            places = [(addition, addition.args.index(branch)) for addition, branch in branches]
            graph.at_end(partial(_keep_length, graph.module.graph, places, changes))


def _keep_length(graph: fx.Graph, places: Sequence[tuple[fx.Node, int]], changes: Collection[fx.Node]) -> None:
    """Of all branches of a skip connection together: of each the addition, and which of its arguments the branch is."""
    ends: list[tuple[fx.Node, Any]] = [(addition, addition.args[place]) for addition, place in places]
    inside = set().union(*(branch_of(addition, branch) for addition, branch in ends))
    of_images = _of_images(graph)
    own = [node for node in of_images if node in inside]
    entries = dict.fromkeys(given for node in own for given in node.all_input_nodes if given not in inside)
    copies: dict[fx.Node, fx.Node] = {}
    for entry in filter(of_images.__contains__, entries):  # where the branch begins; weights are no part of it
        with graph.inserting_after(entry):
            both = graph.call_function(callable_by_a_graph(_Forked.apply), (entry,))
        with graph.inserting_after(both):
            copies[entry] = graph.call_function(operator.getitem, (both, 1))
            changed = graph.call_function(operator.getitem, (both, 0))
        for user in own:
            user.replace_input_with(entry, changed)
        copies[changed] = copies[entry]
    for node in own:
        if node in changes:
            (copies[node], *_) = [copies.get(given, given) for given in node.all_input_nodes]
            continue
        with graph.inserting_after(node):
            copies[node] = graph.node_copy(node, lambda given: copies.get(given, given))
    for addition, branch in ends:
        with graph.inserting_before(addition):
            joined = graph.call_function(callable_by_a_graph(_joined), (branch, copies[branch]))
        addition.replace_input_with(branch, joined)


def _of_images(graph: fx.Graph) -> dict[fx.Node, None]:
    """The nodes that depend on the images, in order of execution."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node.op == "placeholder" or any(given in found for given in node.all_input_nodes):
            found[node] = None
    return found


def _joined(changed: Tensor, unchanged: Tensor) -> Tensor:
    """The output of a branch, whose gradient goes to its unchanged copy too."""
    return with_gradient_of(changed, changed + unchanged)


class _Forked(Function):
    """The input of a branch, for the branch and its unchanged copy, which only says how long the gradient is."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        return value.view_as(value), value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, changed: Tensor, unchanged: Tensor) -> Any:
        exact = torch.promote_types(changed.dtype, torch.float32)
        length, own = (torch.linalg.vector_norm(one.flatten(1), dim=1, dtype=exact) for one in (unchanged, changed))
        scale = length / own.clamp(min=torch.finfo(exact).tiny)  # a gradient of 0 stays 0
        return (changed * scale.view(-1, *[1] * (changed.ndim - 1))).to(changed.dtype)

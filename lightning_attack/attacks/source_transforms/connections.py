"""Residual connections in the graph of a network."""

from __future__ import annotations

import functools
import operator as python
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import fx

from lightning_attack.attacks.source_transforms.channels import CONVOLUTIONS
from lightning_attack.attacks.source_transforms.graph import (
    WEIGHTED,
    SourceGraph,
    above,
    is_change,
    operator,
    shape_of,
)

aten = torch.ops.aten
ENLARGING = (
    aten.upsample_bilinear2d, aten.upsample_nearest2d, aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa,
    aten._upsample_bicubic2d_aa, aten._upsample_nearest_exact2d, aten.grid_sampler_2d, aten.pixel_shuffle,
    aten.max_unpool2d,
)  # fmt: skip
DIVIDING = (aten.split, aten.split_with_sizes, aten.chunk, aten.unbind)
TAKING = (aten.slice, aten.select, aten.index, aten.index_select)
PIECEWISE_LINEAR = (aten.relu, aten.hardtanh, aten.leaky_relu, aten._prelu_kernel)
"""Activations made of straight pieces, as ATen has them; ReLU6 is a hardtanh, PReLU the last."""
ACTIVATIONS = (
    *PIECEWISE_LINEAR, aten.silu, aten.gelu, aten.elu, aten.hardswish, aten.mish, aten.softplus, aten.sigmoid, aten.tanh
)  # fmt: skip
"""Operators of which one may follow the sum of a residual connection."""


class Residual(NamedTuple):
    """A place where a residual branch is added to the skip connection.

    Where the skip connection is added to several branches, each of these additions is one. Branches that are added to
    each other first, as in `skip + (branch + branch)`, count as one branch.
    """

    addition: fx.Node
    branch: fx.Node
    total: fx.Node
    """The whole sum; the addition itself if it adds nothing but the skip connection and one branch."""


class _Summand(NamedTuple):
    node: fx.Node
    way: list[tuple[fx.Node, fx.Node]]
    """The additions from the summand to the sum, and what each of them adds to it."""


Before = dict[fx.Node, int]
"""For each node that depends on the images those that it is computed from and itself, as bits in order of execution."""


def residuals(graph: SourceGraph) -> list[Residual]:
    """Residual connections `skip + branch`, or `skip + branch + branch + ...`, in order of execution.

    The skip connection is what the branches begin with, all of its channels, or comes of it through one layer at most
    (as where a ResNet halves the size), and each branch has more layers one after another. So layers that run side by
    side, and the groups of channels that a block of Res2Net adds to each other, are none; nor are sums in which
    something is enlarged, as in the top-down path of an FPN or in a decoder. A sum of several parts that is none is
    tried again as the sum of the two that are added last, and then those sums that are its parts.
    """
    order = list(graph.module.graph.nodes)
    before = _before(order)
    layers = functools.reduce(int.__or__, [1 << n for n, one in enumerate(order) if operator(one) in WEIGHTED], 0)
    additions = {node: parts for node in graph.all(aten.add) if (parts := _parts(node, before))}
    shared = {node: before[one] & before[other] & layers for node, (one, other) in additions.items()}
    # An addition is a part of a larger sum if both begin at the same place; what lies inside of a branch begins later.
    inner = {node for node in additions if (user := _only_user(node)) in shared and not shared[node] & ~shared[user]}

    def found_in(total: fx.Node, summands: Sequence[_Summand]) -> list[Residual]:
        common = functools.reduce(int.__and__, [before[one.node] for one in summands])
        own = [[order[bit] for bit in _bits(before[one.node] & ~common)] for one in summands]
        skip = _skip(graph, own)
        return [] if skip is None else [Residual(*place, total) for place in summands[skip].way]

    found, todo = [], [node for node in additions if node not in inner]
    for total in todo:
        residual = found_in(total, _summands(total, additions, inner))
        if not residual:
            residual = found_in(total, _summands(total, additions, ()))
            todo += inner.intersection(map(_origin, additions[total]))
        found += residual
    place = {node: number for number, node in enumerate(order)}
    return sorted(found, key=lambda one: (place[one.total], place[one.addition]))


def sums(graph: SourceGraph) -> list[fx.Node]:
    """The sums of residual connections whose first axis is the images, in order of execution."""
    totals = dict.fromkeys(one.total for one in residuals(graph))
    return [total for total in totals if graph.is_of_images(total)]


def blocks(graph: SourceGraph) -> list[Residual]:
    """The residual connections that lie in no branch of another one, as `residuals` gives them.

    No residual connection goes around their sums. Those whose first axis is not the images are left out.
    """
    connections = residuals(graph)
    inside: set[fx.Node] = set()
    for one in connections:
        inside |= branch_of(one.addition, one.branch)
    return [one for one in connections if one.addition not in inside and graph.is_of_images(one.total)]


def branch_of(addition: fx.Node, branch: fx.Node) -> set[fx.Node]:
    """The nodes of a residual connection's branch, which ends with `branch`: none of them is on the way of the skip."""
    skips = [part for part in addition.all_input_nodes if part is not branch]
    return above(branch).difference(*map(above, skips))


def activations_behind(node: fx.Node) -> list[fx.Node]:
    """The activations that take what a node computes, as those behind the sums of residual connections in ResNets."""
    return [user for user in _users(node) if operator(user) in ACTIVATIONS]


def _users(node: fx.Node) -> list[fx.Node]:
    """The nodes that take what a node computes, or what source transforms have made of it."""
    found = []
    for user in node.users:
        if not is_change(user):
            found.append(user)
        elif user.args[0] is node:  # else the value of another node is changed, by means of this one's
            found += _users(user)
    return found


def _before(order: Sequence[fx.Node]) -> Before:
    before: Before = {}
    for number, node in enumerate(order):
        given = functools.reduce(int.__or__, [before.get(one, 0) for one in node.all_input_nodes], 0)
        if given or node.op == "placeholder":
            before[node] = given | 1 << number
    return before


def _bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, from the lowest on."""
    while mask:
        yield (lowest := mask & -mask).bit_length() - 1
        mask ^= lowest


def _parts(addition: fx.Node, before: Before) -> list[fx.Node]:
    """What is added, if it is two tensors of one shape that depend on the images."""
    parts = [part for part in addition.args[:2] if isinstance(part, fx.Node) and part in before]
    same = len(parts) == 2 and shape_of(parts[0]) == shape_of(parts[1]) == shape_of(addition)
    return parts if same else []


def _summands(
    total: fx.Node, additions: Mapping[fx.Node, Sequence[fx.Node]], inner: Collection[fx.Node]
) -> list[_Summand]:
    one, other = additions[total]
    found = []
    for part, beside in ((one, other), (other, one)):
        origin = _origin(part)
        summands = _summands(origin, additions, inner) if origin in inner else [_Summand(part, [])]
        found += [_Summand(node, [*way, (total, beside)]) for node, way in summands]
    return found


def _skip(graph: SourceGraph, own: Sequence[Sequence[fx.Node]]) -> int | None:
    """Which of several summands is the skip connection; None if none is.

    Args:
        own: for each summand the nodes that it is computed from, without those that all summands are computed from.
    """
    if any(operator(node) in ENLARGING or _is_transposed(node) for nodes in own for node in nodes):
        return None
    depths = [_depths(nodes) for nodes in own]
    most = [max(found.values(), default=0) for found in depths]
    least, second = sorted(most)[:2]
    skip = most.index(least)
    whole = not any(_takes_channels(graph, node) for node, depth in depths[skip].items() if depth == 0)
    return skip if least <= 1 and least < second and whole else None


def _depths(nodes: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """How many layers run one after another up to each of some nodes, which are in order of execution."""
    depths: dict[fx.Node, int] = {}
    for node in nodes:
        given = max((depths.get(one, 0) for one in node.all_input_nodes), default=0)
        depths[node] = given + (operator(node) in WEIGHTED)
    return depths


def _takes_channels(graph: SourceGraph, node: fx.Node) -> bool:
    """Whether a node takes some of the channels of what it is given."""
    kind = node
    if node.target is python.getitem:
        (kind, *_) = node.all_input_nodes
    if operator(kind) not in (DIVIDING if kind is not node else TAKING):
        return False
    given = kind.all_input_nodes[0]
    if len(shape_of(given)) != len(shape_of(node)):  # one group of several
        return True
    axis = graph.channels(given)
    return shape_of(node)[axis] < shape_of(given)[axis]


def _only_user(node: fx.Node) -> fx.Node | None:
    """The node that takes what a node computes, if it is one."""
    users = {*_users(node)}
    return users.pop() if len(users) == 1 else None


def _origin(node: fx.Node) -> fx.Node:
    """The node whose value source transforms have changed; itself if they have not."""
    while is_change(node):
        (node, *_) = node.all_input_nodes
    return node


def _is_transposed(node: fx.Node) -> bool:
    return operator(node) in CONVOLUTIONS and bool(node.args[6])

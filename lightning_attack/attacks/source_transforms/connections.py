"""Residual connections in the graph of a network."""

from __future__ import annotations

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
PIECEWISE_LINEAR = (aten.relu, aten.hardtanh, aten.leaky_relu, aten._prelu_kernel)
"""Activations made of straight pieces, as ATen has them; ReLU6 is a hardtanh, PReLU the last."""
ACTIVATIONS = (
    *PIECEWISE_LINEAR, aten.silu, aten.gelu, aten.elu, aten.hardswish, aten.mish, aten.softplus, aten.sigmoid, aten.tanh
)  # fmt: skip
"""Operators of which one may follow the sum of a residual connection."""


def residuals(graph: SourceGraph) -> list[tuple[fx.Node, fx.Node]]:
    """Residual connections: the nodes `skip + branch`, each with its branch, in order of execution.

    One of two cases: what is added to the branch is the branch's own input, or comes of it through one layer at
    most (as where a ResNet halves the size). Additions in which something is enlarged, as in the top-down path of
    an FPN or in a decoder, are none.
    """
    place: dict[fx.Node, int] = {}
    before: dict[fx.Node, int] = {}
    layers = enlarging = 0
    for number, node in enumerate(graph.module.graph.nodes):
        place[node] = 1 << number
        given = 0
        for one in node.all_input_nodes:
            given |= before[one]
        # What does not depend on the images is no part of a branch.
        before[node] = given | place[node] if given or node.op == "placeholder" else 0
        layers |= place[node] * (operator(node) in WEIGHTED)
        enlarging |= place[node] * (operator(node) in ENLARGING or _is_transposed(node))
    found = []
    for node in graph.all(aten.add):
        parts = [part for part in node.args[:2] if isinstance(part, fx.Node) and before[part]]
        if len(parts) < 2 or shape_of(parts[0]) != shape_of(parts[1]) or shape_of(node) != shape_of(parts[0]):
            continue
        own = [before[part] & ~before[other] for part, other in (parts, parts[::-1])]
        counts = [(mine & layers).bit_count() for mine in own]
        if (own[0] | own[1]) & enlarging or min(counts) > 1 or counts[0] == counts[1]:
            continue
        found.append((node, parts[counts.index(max(counts))]))
    return found


def sums(graph: SourceGraph) -> list[fx.Node]:
    """The sums of residual connections whose first axis is the images, in order of execution."""
    return [addition for addition, _ in residuals(graph) if graph.is_of_images(addition)]


def blocks(graph: SourceGraph) -> list[tuple[fx.Node, fx.Node]]:
    """The residual connections that lie in no branch of another one, as `residuals` gives them.

    No residual connection goes around their sums. Those whose first axis is not the images are left out.
    """
    connections = residuals(graph)
    inside: set[fx.Node] = set()
    for addition, branch in connections:
        inside |= branch_of(addition, branch)
    return [(one, branch) for one, branch in connections if one not in inside and graph.is_of_images(one)]


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
        found += _users(user) if is_change(user) else [user]
    return found


def _is_transposed(node: fx.Node) -> bool:
    return operator(node) in CONVOLUTIONS and bool(node.args[6])

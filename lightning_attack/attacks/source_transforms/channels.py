"""`channel_axes`: which axis of what a network computes are the channels."""

from __future__ import annotations

import math
import operator as python
from collections.abc import Sequence

import torch
from torch import Tensor, fx

aten = torch.ops.aten
CONVOLUTIONS = (aten.convolution, aten._convolution)
MATRICES = (aten.addmm, aten.mm, aten.linear)
VIEWS = (aten.view, aten.reshape, aten._unsafe_view)


def channel_axes(graph: fx.Graph) -> dict[fx.Node, int]:
    """The axis of channels of each node of a graph whose only input is images (B, 3, H, W), where it is known.

    A convolution makes the second axis channels, a product with weights the last one. Reshaping and permuting move it;
    other operators leave it where it is, if their result has as many axes. So features (B, C, h, w) are told from
    (B, h, w, C), as Swin and ConvNeXt have them.
    """
    axes: dict[fx.Node, int] = {}
    for node in graph.nodes:
        kind = getattr(node.target, "overloadpacket", None)
        known = [one for one in node.all_input_nodes if one in axes]
        if node.op == "placeholder" or kind in CONVOLUTIONS:
            axes[node] = 1
        elif kind in MATRICES:
            axes[node] = len(_shape(node)) - 1
        elif node.op == "call_function" and known and (shape := _shape(node)):
            axis = _moved(node, kind, _shape(known[0]), axes[known[0]], shape)
            if axis is not None:
                axes[node] = axis
    return axes


def _moved(node: fx.Node, kind: object, before: Sequence[int], axis: int, after: Sequence[int]) -> int | None:
    """Where an operator leaves the axis of its first input that has one."""
    if kind == aten.permute:
        return [dim % len(before) for dim in node.args[1]].index(axis)  # type: ignore[union-attr, operator]
    if kind in (aten.transpose, aten.t):
        one, other = (int(dim) % len(before) for dim in (node.args[1:] or (0, 1)))  # type: ignore[arg-type]
        return {one: other, other: one}.get(axis, axis)
    if kind in VIEWS:
        there = [
            place
            for place, size in enumerate(after)
            if size == before[axis] and math.prod(after[:place]) == math.prod(before[:axis])
        ]
        return there[-1] if there else None
    return axis if len(before) == len(after) else None


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a result, of several that of the first; () if that is no tensor."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list) and node.target is not python.getitem:
        value = value[0] if value else None
    return tuple(value.shape) if isinstance(value, Tensor) else ()

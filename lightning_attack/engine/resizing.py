"""Resizing to the nearest pixel as one operator: older torch (2.9) writes it out as lookups by index when it traces.

A lookup has a gradient that adds value by value to random places, several times slower than the operator's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from lightning_attack.engine.graphs import arguments, call, calls, replace, shape
from lightning_attack.engine.internals import LOOKUP

aten = torch.ops.aten


def join_lookups(graph: fx.Graph) -> None:
    """Replace lookups of rows and columns by the resizing operator where it would take the same ones."""
    for node in calls(graph, LOOKUP):
        images, places = arguments(node)
        if len(shape(images)) != 4 or len(places) != 4 or places[0] is not None or places[1] is not None:
            continue
        size, before = shape(node)[-2:], shape(images)[-2:]
        wanted = (_nearest(*lengths) for lengths in zip(before, size, strict=True))
        if all(torch.equal(_value(place).flatten(), own) for place, own in zip(places[2:], wanted, strict=True)):
            replace(node, call(node, node.meta["val"], aten.upsample_nearest2d.default, images, list(size)))


def _nearest(length: int, size: int) -> Tensor:
    """The row, or column, that each one of a resized image shows."""
    return F.interpolate(torch.arange(length, dtype=torch.float64)[None, None], size=size)[0, 0].long()


def _value(node: Any) -> Any:
    """The value of a node that depends on no input; an empty tensor if it does."""
    if not isinstance(node, fx.Node):
        return node
    if node.op != "call_function" or any(map(_depends, node.all_input_nodes)):
        return torch.empty(0, dtype=torch.int64)
    target: Any = node.target
    value = target(*fx.map_arg(node.args, _value), **fx.map_arg(node.kwargs, _value))
    return value.cpu() if isinstance(value, Tensor) else value


def _depends(node: fx.Node) -> bool:
    return node.op != "call_function" or any(map(_depends, node.all_input_nodes))

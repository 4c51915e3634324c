"""Convolutions of a frozen network: weights packed once, input gradients as convolutions of their own."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace as changed
from typing import Any

import torch
from torch import Tensor, fx

from lightning_attack.engine.depthwise import dilated_depthwise
from lightning_attack.engine.graphs import (
    add_constant,
    call,
    calls,
    cleaned,
    constant,
    dtype,
    padded_to,
    replace,
    shape,
)

aten, mkldnn = torch.ops.aten, torch.ops.mkldnn


@dataclass(frozen=True)
class Geometry:
    """What a convolution (B, C, H, W) -> (B, C', H', W') does beside its weight.

    The weight is (C', C / groups, kernel), of transposed ones (C, C' / groups, kernel).
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, int] = (0, 0)


def adjoint(geometry: Geometry, weight: Tensor, images: tuple[int, ...], results: tuple[int, ...]) -> tuple[Geometry, Tensor]:
    """The convolution that takes the gradient of a convolution's results to that of its images.

    * Of one with stride 1 it is a convolution with the weight turned by 180 degrees and in- and outputs exchanged.
    * Of one with a larger stride the transposed convolution, with the same weight.
    * Of a transposed one the plain convolution, with the same weight.

    Args:
        geometry: of the convolution.
        weight: of the convolution.
        images: shape of its input.
        results: shape of its output.
    """
    kernel, g = weight.shape[-2:], geometry
    reach = [d * (k - 1) for d, k in zip(g.dilation, kernel, strict=True)]
    if g.transposed:
        return changed(g, transposed=False, output_padding=(0, 0)), weight
    if g.stride == (1, 1) and all(r >= p for r, p in zip(reach, g.padding, strict=True)):
        turned = weight.flip(-1, -2).unflatten(0, (g.groups, -1)).transpose(1, 2).flatten(0, 1)
        return changed(g, padding=tuple(r - p for r, p in zip(reach, g.padding, strict=True))), turned
    rest = [
        size - ((result - 1) * s - 2 * p + r + 1)
        for size, result, s, p, r in zip(images[-2:], results[-2:], g.stride, g.padding, reach, strict=True)
    ]
    return changed(g, transposed=True, output_padding=tuple(rest)), weight


class Packed:
    """Weights in the library's own order, made once for each weight and geometry."""

    def __init__(self) -> None:
        self._packed: dict[tuple[int, Geometry], tuple[Tensor, Tensor]] = {}

    def __call__(self, weight: Tensor, geometry: Geometry) -> Tensor:
        """The packed weight."""
        key = (id(weight), geometry)
        if key not in self._packed:
            g = geometry
            if g.transposed:
                packed = mkldnn._reorder_convolution_transpose_weight(
                    weight, g.padding, g.output_padding, g.stride, g.dilation, g.groups
                )
            else:
                packed = mkldnn._reorder_convolution_weight(weight, g.padding, g.stride, g.dilation, g.groups)
            # The weight is kept beside it, lest another one takes its place in memory and with it its id.
            self._packed[key] = (weight, packed)
        return self._packed[key][1]


def lower(module: fx.GraphModule, packed: Packed) -> fx.GraphModule:
    """The graph with its two-dimensional convolutions, and their input gradients, on packed weights."""
    for node in calls(module.graph, aten.convolution.default):
        x, weight, bias, *settings = node.args
        found = constant(module, weight)
        if found is not None and found.ndim == 4:
            replace(node, _convolution(module, packed, node, x, found, bias, _geometry(settings)))
    for node in calls(module.graph, aten.convolution_backward.default):
        _lower_gradient(module, packed, node)
    return cleaned(module)


def _lower_gradient(module: fx.GraphModule, packed: Packed, node: fx.Node) -> None:
    gradient, x, weight, _, *settings, wanted = node.args
    found = constant(module, weight)
    if found is None or found.ndim != 4 or list(wanted) != [True, False, False]:  # type: ignore
        return
    geometry, found = adjoint(_geometry(settings), found, shape(x), shape(gradient))  # type: ignore
    for result in [user for user in node.users if user.target is operator.getitem]:
        parts = _parts(result) if geometry.groups == 1 else []
        for part, start, stop in parts:
            # A gradient of joined tensors is computed apart for each of them, not cut afterwards.
            own = found[:, start:stop] if geometry.transposed else found[start:stop]
            replace(part, _convolution(module, packed, part, gradient, own.contiguous(), None, geometry))
        if not parts:
            replace(result, _convolution(module, packed, result, gradient, found, None, geometry))


def _parts(node: fx.Node) -> list[tuple[fx.Node, int, int]]:
    """The users of a node and the channels they take, if all of them are slices of channels."""
    parts = []
    for user in node.users:
        if user.target != aten.slice.Tensor or user.args[1] != 1 or len(user.args) > 4:
            return []
        start, stop = (*user.args[2:], None, None)[:2]
        begin, end, _ = slice(start, stop).indices(shape(node)[1])  # type: ignore
        parts.append((user, begin, end))
    return parts


def _convolution(
    module: fx.GraphModule, packed: Packed, node: fx.Node, x: Any, weight: Tensor, bias: Any, geometry: Geometry
) -> fx.Node:
    """A node before `node`, and with the shape of its result, that computes a convolution in the fastest known way."""
    value, g = node.meta["val"], geometry
    depthwise = g.groups == weight.shape[0] and weight.shape[1] == 1
    if depthwise and not g.transposed and g.stride == (1, 1) and g.dilation != (1, 1):
        taps = add_constant(module, node, weight)
        return call(node, value, dilated_depthwise, x, taps, bias, list(g.padding), list(g.dilation))
    if g.transposed:
        # In bfloat16 the library's transposed depthwise convolutions are several times slower than in float32.
        wide = depthwise and dtype(x) == torch.bfloat16
        if wide:
            x = call(node, x.meta["val"].float(), aten._to_copy.default, x, dtype=torch.float32)
            bias = None if bias is None else add_constant(module, node, constant(module, bias).float())  # type: ignore
            weight = weight.float()
        place = add_constant(module, node, packed(weight, g))
        result = call(
            node, value.float() if wide else value, mkldnn._convolution_transpose_pointwise.default,
            x, place, bias, list(g.padding), list(g.output_padding), list(g.stride), list(g.dilation), g.groups,
            "none", [], "",
        )  # fmt: skip
        return call(node, value, aten._to_copy.default, result, dtype=torch.bfloat16) if wide else result
    place = add_constant(module, node, packed(weight, g))
    return call(
        node, value, mkldnn._convolution_pointwise.default,
        x, place, bias, list(g.padding), list(g.stride), list(g.dilation), g.groups, "none", [], "",
    )  # fmt: skip


def _geometry(settings: list[Any]) -> Geometry:
    stride, padding, dilation, transposed, output_padding, groups = settings
    pairs = [tuple(padded_to(2, values)) for values in (stride, padding, dilation, output_padding)]
    return Geometry(pairs[0], pairs[1], pairs[2], groups, transposed, pairs[3])

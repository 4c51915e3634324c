"""Convolutions of a frozen network: weights packed once, input gradients written as convolutions."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any

import torch
from torch import Tensor, fx

from lightning_attack.engine.content import content
from lightning_attack.engine.depthwise import dilated_depthwise
from lightning_attack.engine.graphs import (
    add_constant,
    arguments,
    call,
    calls,
    cleaned,
    constant,
    dtype,
    replace,
    shape,
)
from lightning_attack.engine.internals import (
    CONVOLUTION,
    CONVOLUTION_TRANSPOSED,
    PACK_CONVOLUTION,
    PACK_CONVOLUTION_TRANSPOSED,
    TO_COPY,
)
from lightning_attack.engine.pointwise import pack, pointwise
from lightning_attack.engine.strided import phases, shuffled, spread, thinned

aten = torch.ops.aten


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


def adjoint(
    geometry: Geometry, weight: Tensor, images: tuple[int, ...], results: tuple[int, ...]
) -> tuple[Geometry, Tensor]:
    """The convolution that takes the gradient of a convolution's results to that of its images.

    * Of one with stride 1 it is a convolution with the weight turned by 180 degrees and in- and outputs exchanged.
    * Of one with a larger stride the transposed convolution, with the same weight.
    * Of a transposed one the ordinary convolution, with the same weight.

    Args:
        geometry: of the convolution.
        weight: of the convolution.
        images: shape of its input.
        results: shape of its output.
    """
    g, both = geometry, (0, 1)
    if g.transposed:
        return changed(g, transposed=False, output_padding=(0, 0)), weight
    reach = [g.dilation[i] * (weight.shape[2 + i] - 1) for i in both]
    padding = [reach[i] - g.padding[i] for i in both]
    if g.stride == (1, 1) and min(padding) >= 0:
        turned = weight.flip(-1, -2).unflatten(0, (g.groups, -1)).transpose(1, 2).flatten(0, 1)
        return changed(g, padding=_pair(padding)), turned
    # Rows and columns at the end that the stride has left over.
    rest = [images[2 + i] - ((results[2 + i] - 1) * g.stride[i] - 2 * g.padding[i] + reach[i] + 1) for i in both]
    return changed(g, transposed=True, output_padding=_pair(rest)), weight


class Packed:
    """Weights in the library's own order, made once for each weight and geometry, whatever the shape of the images."""

    def __init__(self) -> None:
        self._packed: dict[tuple[object, ...], Tensor] = {}

    def convolution(self, weight: Tensor, geometry: Geometry) -> Tensor:
        """The weight for the library's convolutions."""
        g = geometry
        if g.transposed:
            return self._once(
                weight, g, PACK_CONVOLUTION_TRANSPOSED,
                g.padding, g.output_padding, g.stride, g.dilation, g.groups,
            )  # fmt: skip
        return self._once(
            weight, g, PACK_CONVOLUTION, g.padding, g.stride, g.dilation, g.groups
        )  # fmt: skip

    def pointwise(self, weight: Tensor) -> Tensor:
        """The weight for `pointwise`."""
        return self._once(weight, "pointwise", pack)

    def _once(self, weight: Tensor, use: object, make: Callable[..., Tensor], *settings: Any) -> Tensor:
        # By content: each shape of images has a graph of its own, with the same numbers in other tensors.
        key = (hashlib.blake2b(content(weight), digest_size=16).digest(), weight.shape, weight.dtype, use)
        if key not in self._packed:
            self._packed[key] = make(weight, *settings)
        return self._packed[key]


def lower(module: fx.GraphModule, packed: Packed) -> fx.GraphModule:
    """The graph with its two-dimensional convolutions, and their input gradients, on packed weights."""
    for node in calls(module.graph, aten.convolution.default):
        x, weight, bias, *settings = arguments(node)
        found = constant(module, weight)
        known = bias is None or constant(module, bias) is not None
        if found is not None and found.ndim == 4 and known:
            geometry = _geometry(settings, found)
            replace(node, Lowering(module, packed, node).convolution(x, found, bias, geometry))
    # From last to first: gradients of joined tensors are split into parts, some of which are split again.
    for node in reversed(calls(module.graph, aten.convolution_backward.default)):
        _lower_gradient(module, packed, node)
    return cleaned(module)


def _lower_gradient(module: fx.GraphModule, packed: Packed, node: fx.Node) -> None:
    gradient, x, weight, _, *settings, wanted = arguments(node)
    found = constant(module, weight)
    if found is None or found.ndim != 4 or list(wanted) != [True, False, False]:
        return
    geometry, found = adjoint(_geometry(settings, found), found, shape(x), shape(gradient))
    depthwise = geometry.groups == len(found) and found.shape[1] == 1
    for result in [user for user in node.users if user.target is operator.getitem]:
        parts = _parts(result) if geometry.groups == 1 or depthwise else []
        for part, start, stop in parts:
            # A gradient of joined tensors is computed apart for each of them, not cut afterwards.
            lowering, share = Lowering(module, packed, part), gradient
            if depthwise:
                value = gradient.meta["val"][:, start:stop]
                share = call(part, value, aten.slice.Tensor, gradient, 1, start, stop)
                own, its = found[start:stop], changed(geometry, groups=stop - start)
            else:
                own, its = (found[:, start:stop] if geometry.transposed else found[start:stop]), geometry
            replace(part, lowering.convolution(share, own.contiguous(), None, its))
        if not parts:
            replace(result, Lowering(module, packed, result).convolution(gradient, found, None, geometry))
        else:
            module.graph.erase_node(result)
    module.graph.erase_node(node)


def _parts(node: fx.Node) -> list[tuple[fx.Node, int, int]]:
    """The users of a node and the channels they take, if all of them are slices of channels."""
    parts = []
    for user in node.users:
        _, dim, *places = (*arguments(user), 0) if user.target == aten.slice.Tensor else (None, None)
        if dim != 1 or len(places) != 3:
            return []  # no slice, one of rows or columns, or one that leaves out every other channel
        start, stop, _ = places
        begin, end, _ = slice(start, stop).indices(shape(node)[1])
        parts.append((user, begin, end))
    return parts


class Lowering:
    """Writes one convolution into a graph, before a node and with the shape of its result.

    Args:
        module: the graph.
        packed: the packed weights.
        node: the node.
    """

    def __init__(self, module: fx.GraphModule, packed: Packed, node: fx.Node) -> None:
        self.module, self.packed, self.node, self.value = module, packed, node, node.meta["val"]

    def convolution(self, x: Any, weight: Tensor, bias: Any, geometry: Geometry) -> fx.Node:
        """The fastest known way to compute it."""
        g = geometry
        depthwise = g.groups == len(weight) and weight.shape[1] == 1
        single = weight.shape[-2:] == (1, 1) and g.groups == 1 and g.padding == (0, 0)
        if single and not (g.transposed and bias is not None):
            return self._pointwise(x, weight, bias, g)
        square = g.stride[0] == g.stride[1] and g.dilation == (1, 1)
        if g.transposed and g.groups == 1 and weight.shape[1] <= 4 and square and bias is None:
            return self._by_phases(x, weight, g)
        if depthwise and not g.transposed and g.stride == (1, 1) and g.dilation != (1, 1):
            taps = self._constant(weight)
            return self._call(dilated_depthwise, x, taps, bias, list(g.padding), list(g.dilation))
        if g.transposed and depthwise and dtype(x) == torch.bfloat16:
            # The library's own is several times slower in bfloat16.
            wide = self._call(TO_COPY, x, dtype=torch.float32)
            wide.meta["val"] = x.meta["val"].float()
            own = constant(self.module, bias)
            bias = None if own is None else self._constant(own.float())
            result = self._library(wide, weight.float(), bias, g)
            result.meta["val"] = self.value.float()
            return self._call(TO_COPY, result, dtype=torch.bfloat16)
        return self._library(x, weight, bias, g)

    def _library(self, x: Any, weight: Tensor, bias: Any, g: Geometry) -> fx.Node:
        place, pairs = self._constant(self.packed.convolution(weight, g)), [list(g.stride), list(g.dilation)]
        if g.transposed:
            target, pairs = CONVOLUTION_TRANSPOSED, [list(g.output_padding), *pairs]
        else:
            target = CONVOLUTION
        return self._call(target, x, place, bias, list(g.padding), *pairs, g.groups, "none", [], "")

    def _pointwise(self, x: Any, weight: Tensor, bias: Any, g: Geometry) -> fx.Node:
        stride = list(g.stride)
        if g.transposed:
            turned = weight.transpose(0, 1).contiguous()
            small = self._call(pointwise, x, self._constant(self.packed.pointwise(turned)), bias, "none", [], "")
            small.meta["val"] = self.value[..., :: stride[0], :: stride[1]]
            return self._call(spread, small, stride, list(self.value.shape[-2:]))
        if g.stride != (1, 1):
            value = x.meta["val"][..., :: stride[0], :: stride[1]]
            x = self._call(thinned, x, stride)
            x.meta["val"] = value
        return self._call(pointwise, x, self._constant(self.packed.pointwise(weight)), bias, "none", [], "")

    def _by_phases(self, x: Any, weight: Tensor, g: Geometry) -> fx.Node:
        """A transposed convolution to few channels, such as the gradient of images: the phases fill a register."""
        stride, size = g.stride[0], self.value.shape[-2:]
        weight, padding, late = phases(weight, stride, g.padding, x.meta["val"].shape[-2:], size)
        inner = self.convolution(x, weight, None, Geometry((1, 1), padding, (1, 1), 1))
        return self._call(shuffled, inner, stride, list(late), list(size))

    def _constant(self, value: Tensor) -> fx.Node:
        return add_constant(self.module, self.node, value)

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return call(self.node, self.value, target, *args, **kwargs)


def _geometry(settings: list[Any], weight: Tensor) -> Geometry:
    stride, padding, dilation, transposed, output_padding, groups = settings
    down, across = _pair(dilation)
    height, width = weight.shape[-2:]
    # A kernel of one tap has nothing to dilate, but the library would take a slower way.
    dilation = (down if height > 1 else 1, across if width > 1 else 1)
    return Geometry(_pair(stride), _pair(padding), dilation, groups, transposed, _pair(output_padding))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    """Down and across; ATen allows one value for both."""
    return values[0], values[-1]

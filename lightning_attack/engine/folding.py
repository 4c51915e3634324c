"""Rewrites of a network's forward graph that hold for its gradient too: normalisations folded, sums written out."""

from __future__ import annotations

import operator
from functools import reduce

import torch
from torch import Tensor, fx

from lightning_attack.engine.graphs import add_constant, call, calls, cleaned, constant, only_user, replace

aten = torch.ops.aten

_BATCH_NORMS = (aten.native_batch_norm.default, aten._native_batch_norm_legit_no_training.default)


def fold(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with batch normalisations folded into convolutions and sums over stacked tensors as additions."""
    for node in calls(module.graph, *_BATCH_NORMS):
        _fold_batch_norm(module, node)
    for node in calls(module.graph, aten.sum.dim_IntList):
        _unstack(node)
    return cleaned(module)


def _fold_batch_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """y = (x - mean) / sqrt(var + eps) * weight + bias = scale x + shift, with scale and shift in the convolution."""
    x, weight, bias, mean, variance = node.args[:5]
    if node.target == aten.native_batch_norm.default and node.args[5]:
        return  # it uses the statistics of the batch
    statistics = [constant(module, one) for one in (mean, variance)]
    affine = [constant(module, one) if one is not None else fill for one, fill in ((weight, 1.0), (bias, 0.0))]
    results = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
    if not isinstance(x, fx.Node) or any(one is None for one in (*statistics, *affine)) or len(results) != len(node.users):
        return
    # In float64, so that nothing is lost where the variance is small.
    scale = affine[0] / (statistics[1].double() + node.args[-1]).sqrt()  # type: ignore
    shift = affine[1] - statistics[0].double() * scale  # type: ignore
    for result in results:
        replace(result, _scaled_convolution(module, x, scale, shift) or _scaled(module, node, x, scale, shift))
    module.graph.erase_node(node)


def _scaled_convolution(module: fx.GraphModule, node: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node | None:
    """The convolution with another weight and bias; None if it is none, or others need its result too."""
    if node.target != aten.convolution.default or only_user(node) is None:
        return None
    weight, bias = constant(module, node.args[1]), constant(module, node.args[2])
    if weight is None or (bias is None and node.args[2] is not None):
        return None
    transposed, groups = node.args[6], node.args[8]
    if transposed:
        grouped = weight.double().unflatten(0, (groups, -1))  # (groups, in, out, ...)
        folded = (grouped * scale.view(groups, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1)  # type: ignore
    else:
        folded = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    moved = shift if bias is None else shift + bias * scale
    arguments = list(node.args)
    arguments[1] = add_constant(module, node, folded.to(weight.dtype))
    arguments[2] = add_constant(module, node, moved.to(weight.dtype))
    node.args = tuple(arguments)
    return node


def _scaled(module: fx.GraphModule, before: fx.Node, x: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    value = x.meta["val"]
    scale, shift = (one.to(value.dtype).view(-1, *[1] * (value.ndim - 2)) for one in (scale, shift))
    product = call(before, value, aten.mul.Tensor, x, add_constant(module, before, scale))
    return call(before, value, aten.add.Tensor, product, add_constant(module, before, shift))


def _unstack(node: fx.Node) -> None:
    """sum(stack([a, b, c], 0), 0) = a + b + c: the sum over the slowest dimension is slow in channels_last."""
    stacked, dims, *rest = node.args
    if (
        isinstance(stacked, fx.Node)
        and stacked.target == aten.stack.default
        and list(stacked.args[1:] or [0]) == list(dims)  # type: ignore
        and not any(rest)
        and not node.kwargs
    ):
        value = node.meta["val"]
        replace(node, reduce(lambda a, b: call(node, value, aten.add.Tensor, a, b), stacked.args[0]))  # type: ignore

"""Rewrites of a network's forward graph that hold for its gradient too: normalisations folded, sums written out."""

from __future__ import annotations

import operator
from functools import reduce

import torch
from torch import Tensor, fx

from lightning_attack.engine.graphs import (
    add_constant,
    arguments,
    call,
    calls,
    cleaned,
    constant,
    only_user,
    replace,
)
from lightning_attack.engine.internals import BATCH_NORMS, BATCH_NORMS_WITH_MODE

aten = torch.ops.aten


def fold(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with batch normalisations folded into convolutions and sums over stacked tensors as additions."""
    for node in calls(module.graph, *BATCH_NORMS):
        _fold_batch_norm(module, node)
    for node in calls(module.graph, aten.sum.dim_IntList):
        _unstack(node)
    return cleaned(module)


def _fold_batch_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Y = (x - mean) / sqrt(var + eps) * weight + bias = scale x + shift, with scale and shift in the convolution."""
    given = arguments(node)
    x, eps = given[0], given[-1]
    if node.target in BATCH_NORMS_WITH_MODE and given[5]:
        return  # it uses the statistics of the batch
    results = [user for user in node.users if user.target is operator.getitem and arguments(user)[1] == 0]
    weight, bias, mean, variance = (constant(module, operand) for operand in given[1:5])
    if mean is None or variance is None or len(results) != len(node.users):
        return
    # In float64, so that nothing is lost where the variance is small.
    scale = (variance.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean.double() * scale
    if bias is not None:
        shift = shift + bias
    for result in results:
        replace(result, _scaled_convolution(module, x, scale, shift) or _scaled(module, node, x, scale, shift))
    module.graph.erase_node(node)


def _scaled_convolution(module: fx.GraphModule, node: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node | None:
    """The convolution with another weight and bias; None if it is none, or others need its result too."""
    if node.target != aten.convolution.default or only_user(node) is None:
        return None
    x, weight_node, bias_node, *settings = arguments(node)
    weight, bias = constant(module, weight_node), constant(module, bias_node)
    if weight is None or (bias is None and bias_node is not None):
        return None
    transposed, groups, ones = settings[3], settings[5], [1] * (weight.ndim - 2)
    if transposed:
        folded = (weight.double().unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, *ones)).flatten(0, 1)
    else:
        folded = weight.double() * scale.view(-1, 1, *ones)
    moved = shift if bias is None else shift + bias * scale
    constants = (add_constant(module, node, values.to(weight.dtype)) for values in (folded, moved))
    node.args = (x, *constants, *settings)
    return node


def _scaled(module: fx.GraphModule, before: fx.Node, x: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    value = x.meta["val"]
    scale, shift = (factor.to(value.dtype).view(-1, *[1] * (value.ndim - 2)) for factor in (scale, shift))
    product = call(before, value, aten.mul.Tensor, x, add_constant(module, before, scale))
    return call(before, value, aten.add.Tensor, product, add_constant(module, before, shift))


def _unstack(node: fx.Node) -> None:
    """sum(stack([a, b, c], 0), 0) = a + b + c: the sum over the slowest dimension is slow in channels_last."""
    stacked, dims, *rest = arguments(node)
    if stacked.target == aten.stack.default and not any(rest) and not node.kwargs:
        tensors, *dim = arguments(stacked)
        if (dim or [0]) == list(dims):
            replace(node, reduce(lambda a, b: call(node, node.meta["val"], aten.add.Tensor, a, b), tensors))

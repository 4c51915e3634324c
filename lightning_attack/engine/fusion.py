"""Elementwise operators done by the convolution before them, or in the memory of what they replace."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from lightning_attack.engine.depthwise import dilated_depthwise
from lightning_attack.engine.graphs import arguments, call, calls, cleaned, dtype, is_tensor, only_user, replace, shape
from lightning_attack.engine.internals import (
    CONVOLUTION,
    CONVOLUTION_SUM,
    CONVOLUTION_SUM_IN_PLACE,
    CONVOLUTION_TRANSPOSED,
    IN_PLACE_GRADIENTS,
)
from lightning_attack.engine.masks import join_sums, masked, masked_, unpooled
from lightning_attack.engine.pointwise import pointwise
from lightning_attack.engine.strided import shuffled, spread, thinned

aten = torch.ops.aten

_IN_PLACE: dict[Any, Any] = {
    aten.add.Tensor: aten.add_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
    aten.relu.default: aten.relu_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.silu.default: aten.silu_.default,
    aten.hardswish.default: aten.hardswish_.default,
    masked: masked_,
}

_RISKY = (aten.reciprocal, aten.sqrt, aten.rsqrt, aten.log, aten.log2, aten.log10)
"""Not finite for some finite numbers. Behind them the library's ReLU must not run: it makes 0 of NaN, so that an image
which the network cannot judge would be scored."""

_NEW = {
    CONVOLUTION, CONVOLUTION_TRANSPOSED, CONVOLUTION_SUM, CONVOLUTION_SUM_IN_PLACE, dilated_depthwise, pointwise,
    shuffled, spread, thinned, unpooled,
    aten.upsample_nearest2d_backward.default, aten.upsample_bilinear2d_backward.default,
    aten.max_pool2d_with_indices_backward.default, aten.avg_pool2d_backward.default,
    *_IN_PLACE, *_IN_PLACE.values(), *IN_PLACE_GRADIENTS, *IN_PLACE_GRADIENTS.values(),
}  # fmt: skip
"""Operators whose result is memory of its own, or memory that another one of these has handed over for good."""


def fuse(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with activations and sums inside the convolutions that come before them."""
    for node in calls(module.graph, aten.add.Tensor):
        _into_sum(node)
    doubtful = _perhaps_nan(module.graph)
    for node in calls(module.graph, CONVOLUTION, CONVOLUTION_TRANSPOSED, CONVOLUTION_SUM, pointwise):
        _with_activation(node, {"relu", "hardtanh"} if node in doubtful else set())
    return cleaned(module)


def reuse(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with elementwise operators that write over an operand which nothing else needs.

    Of memory that the caller owns, or that is kept for the backward pass, nothing is written over.
    """
    for node in calls(module.graph, CONVOLUTION_SUM):
        x, other, *rest = arguments(node)
        if _handed_over(node, other):
            node.target, node.args = CONVOLUTION_SUM_IN_PLACE, (other, x, *rest)
    for node in calls(module.graph, aten.add.Tensor):
        operands = arguments(node)
        if len(operands) == 2 and not node.kwargs and _handed_over(node, operands[1]):
            node.args = operands[::-1]
    for node in calls(module.graph, *_IN_PLACE):
        if _handed_over(node, arguments(node)[0]):
            node.target = _IN_PLACE[node.target]
    for node in calls(module.graph, *IN_PLACE_GRADIENTS):
        if _handed_over(node, arguments(node)[0]):
            node.target, node.kwargs = IN_PLACE_GRADIENTS[node.target], {"grad_input": arguments(node)[0]}
    join_sums(module.graph)
    module.recompile()
    return module


def _handed_over(node: fx.Node, operand: Any) -> bool:
    """Whether the result of `node` may take the memory of an operand."""
    return (
        is_tensor(operand)
        and operand.target in _NEW
        and only_user(operand) is node
        and shape(operand) == shape(node)
        and dtype(operand) == dtype(node)
    )


def _into_sum(node: fx.Node) -> None:
    """conv(x) + other in one pass."""
    operands = arguments(node)
    if len(operands) != 2 or node.kwargs:
        return
    for own, other in (operands, operands[::-1]):
        if (
            is_tensor(own)
            and is_tensor(other)
            and own.target == CONVOLUTION
            and only_user(own) is node
            and shape(own) == shape(other)
            and dtype(own) == dtype(other)
        ):
            x, *settings, activation, _, _ = arguments(own)
            if activation == "none":
                settings = [other, *settings, "add", None, None, [], None]
                replace(node, call(node, node.meta["val"], CONVOLUTION_SUM, x, *settings))
                return


def _perhaps_nan(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that may be NaN for some images: behind a division by what depends on these, a root, or a logarithm.

    Those of numbers to which a small one was added, as `x / (x.std() + eps)`, are taken to be sound.
    """
    depends: set[fx.Node] = set()
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or depends.intersection(node.all_input_nodes):
            depends.add(node)
        kind, given = getattr(node.target, "overloadpacket", None), arguments(node)
        if kind == aten.div:
            risky = given[1] in depends and not _is_guarded(given[1])
        elif kind == aten.pow:
            risky = given[0] in depends and not (isinstance(given[1], int) and given[1] >= 0)
        else:
            risky = kind in _RISKY and given[0] in depends and not _is_guarded(given[0])
        if risky or found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _is_guarded(node: fx.Node) -> bool:
    """Whether a number above 0 was added, or is the least value, perhaps under a root."""
    kind, given = getattr(node.target, "overloadpacket", None), arguments(node)
    if kind in (aten.sqrt, aten.expand):
        return _is_guarded(given[0])
    return kind in (aten.add, aten.clamp_min, aten.clamp) and isinstance(given[1], int | float) and given[1] > 0


def _with_activation(node: fx.Node, apart: set[str]) -> None:
    """activation(conv(x)), and relu(conv(x) + other), in one pass; those of the names in `apart` stay as they are."""
    user = only_user(node)
    activation = None if user is None else _activation(user)
    if user is None or activation is None or activation[0] in apart:
        return
    if node.target == CONVOLUTION_SUM and activation[0] != "relu":
        return
    node.args = (*arguments(node)[:-3], *activation)
    replace(user, node)


def _activation(node: fx.Node) -> tuple[str, list[float], str] | None:
    """An activation as the library's name, numbers and variant of it."""
    if node.target == aten.hardtanh.default:
        limits = list(arguments(node)[1:])
        return "hardtanh", [*limits, *(-1.0, 1.0)[len(limits) :]], ""
    if node.target == aten.gelu.default:
        return "gelu", [], str(node.kwargs.get("approximate", "none"))
    names: dict[Any, str] = {aten.relu.default: "relu", aten.hardswish.default: "hardswish", aten.silu.default: "swish"}
    return (names[node.target], [], "") if node.target in names else None

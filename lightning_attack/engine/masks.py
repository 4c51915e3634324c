"""What the backward pass has to know of ReLU and of maxima, kept in a quarter of the memory or less."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from lightning_attack.engine.graphs import arguments, call, calls, only_user, replace, shape

aten = torch.ops.aten

_RELU, _RELU_GRADIENT = aten.relu.default, aten.threshold_backward.default
_MAXIMA, _MAXIMA_GRADIENT = aten.max_pool2d_with_indices.default, aten.max_pool2d_with_indices_backward.default

BLOCK = 2**20
"""Values looked at at once: few enough for the cache, so many that the calls cost nothing beside them."""


def passed(gradient: Tensor, above: Tensor) -> Tensor:
    """The gradient of ReLU: that of its results where they are above 0, elsewhere 0.

    Args:
        gradient: of the results.
        above: where they are above 0, bool, of the same shape.

    Example:
        >>> passed(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([True, True, False]))
        tensor([ 1., -2.,  0.])
    """
    return passed_(gradient.clone(), above)


def passed_(gradient: Tensor, above: Tensor) -> Tensor:
    """The same in the memory of the gradient."""
    gradients, known = _in_order(gradient), _in_order(above)
    if gradients is None or known is None or gradient.stride() != above.stride():
        return gradient.copy_(aten.threshold_backward(gradient, above.to(gradient.dtype), 0))
    # Operators on bool and floating values together are ten times slower than that of ReLU on values of one type.
    values = gradient.new_empty(min(BLOCK, len(gradients)))
    for part, there in zip(gradients.split(BLOCK), known.view(torch.uint8).split(BLOCK), strict=True):
        aten.threshold_backward.grad_input(part, values[: len(part)].copy_(there), 0, grad_input=part)
    return gradient


def _in_order(values: Tensor) -> Tensor | None:
    """The values as they lie in memory; None if not one beside the other."""
    if values.is_contiguous():
        return values.view(-1)
    if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
        return values.permute(0, 2, 3, 1).view(-1)
    return None


def unpooled(
    gradient: Tensor, places: Tensor, size: list[int], kernel: list[int], stride: list[int], padding: list[int],
    dilation: list[int], ceil: bool,
) -> Tensor:  # fmt: skip
    """The gradient of maxima for the images that they were taken of, whose values it does not need.

    Args:
        gradient: of the maxima, (B, C, H', W').
        places: where each of them was, in its channel, any integer type.
        size: of the images, (B, C, H, W).
        kernel: of the windows, as `stride`, `padding` and `dilation`, down and across.
        stride: of the windows.
        padding: of the images.
        dilation: of the windows.
        ceil: whether the number of windows was rounded up.

    Example:
        >>> windows = [2, 2], [2, 2], [0, 0], [1, 1], False
        >>> unpooled(torch.ones(1, 1, 1, 1), torch.tensor([[[[2]]]]), [1, 1, 2, 2], *windows).tolist()
        [[[[0.0, 0.0], [1.0, 0.0]]]]
    """
    # The library asks for the images, but only for their shape and layout.
    images = torch.empty(size, dtype=gradient.dtype, memory_format=torch.channels_last)
    return aten.max_pool2d_with_indices_backward(
        gradient, images, kernel, stride, padding, dilation, ceil, places.long()
    )


def mask_maxima(graph: fx.Graph) -> None:
    """Let the gradient of ReLU before maxima look at the maxima, and that of the maxima at no values at all.

    A gradient only gets to a maximum, where ReLU's result is that maximum: it may be masked before it is spread.
    """
    for node in calls(graph, _MAXIMA_GRADIENT):
        gradient, images, kernel, stride, padding, dilation, ceil, places = arguments(node)
        user, pooled = only_user(node), arguments(places)[0]
        if pooled.target != _MAXIMA or len(shape(images)) != 4:
            continue
        if user is not None and user.target == _RELU_GRADIENT and arguments(user)[1:] == (images, 0):
            value = gradient.meta["val"]
            maxima = next((one for one in pooled.users if arguments(one)[1] == 0), None)
            if maxima is not None:
                replace(user, node)
                gradient = call(node, value, _RELU_GRADIENT, gradient, maxima, 0)
        settings = list(shape(images)), kernel, stride, padding, dilation, ceil
        replace(node, call(node, node.meta["val"], unpooled, gradient, places, *settings))


def keep_less(graph: fx.Graph, forward: set[fx.Node]) -> set[fx.Node]:
    """Give the backward pass masks of ReLU's results, and places as numbers of 32 bits, if that is all it needs.

    Args:
        graph: that of both passes.
        forward: the nodes of the forward pass.

    Returns:
        The new nodes of the forward pass.
    """
    added = set()
    for node in [node for node in graph.nodes if node in forward]:
        later = [user for user in node.users if user not in forward and user.op != "output"]
        if later and _is_relu(node) and all(_needs_a_mask(user, node) for user in later):
            added.add(_instead(node, later, torch.bool))
            for user in later:
                user.target, user.args = passed, user.args[:2]
        elif later and all(user.target is unpooled and arguments(user)[0] is not node for user in later):
            added.add(_instead(node, later, torch.int32))
    return added


def _is_relu(node: fx.Node) -> bool:
    """Whether these are results of ReLU, or maxima of them: none is below 0."""
    if node.target is operator.getitem:
        source, number = arguments(node)
        return number == 0 and source.target == _MAXIMA and _is_relu(arguments(source)[0])
    return node.target == _RELU


def _needs_a_mask(user: fx.Node, node: fx.Node) -> bool:
    return user.target == _RELU_GRADIENT and arguments(user)[0] is not node and arguments(user)[2] == 0


def _instead(node: fx.Node, users: list[fx.Node], dtype: torch.dtype) -> fx.Node:
    """The node's values in another type, in its place for some of its users."""
    convert: Callable[..., Any] = aten._to_copy.default
    short = call(node.next, node.meta["val"].to(dtype), convert, node, dtype=dtype)
    for user in users:
        user.replace_input_with(node, short)
    return short

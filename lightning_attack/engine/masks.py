"""What the backward pass needs of ReLU and max pooling, kept as masks and indices: a quarter of the memory or less."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
from torch import Tensor, fx

from lightning_attack.engine.graphs import arguments, call, calls, dtype, is_tensor, only_user, replace, shape
from lightning_attack.engine.internals import TO_COPY

aten = torch.ops.aten

_RELU, _RELU_GRADIENT = aten.relu.default, aten.threshold_backward.default
_MAXIMA, _MAXIMA_GRADIENT = aten.max_pool2d_with_indices.default, aten.max_pool2d_with_indices_backward.default

BLOCK = 2**20
"""Values processed at once: few enough for the cache, and enough of them that the calls cost nothing beside them."""


def masked(gradient: Tensor, above: Tensor) -> Tensor:
    """Gradient of ReLU: the gradient of its results where they are above 0, elsewhere 0.

    Args:
        gradient: of the results, of any floating type of 16, 32 or 64 bits.
        above: where they are above 0, bool, of the same shape.

    Example:
        >>> masked(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([True, True, False]))
        tensor([ 1., -2.,  0.])
    """
    return masked_(gradient.clone(), above)


def masked_(gradient: Tensor, above: Tensor) -> Tensor:
    """`masked`, written into the memory of the gradient."""
    for part, known in _blocks(gradient, above):
        _pass(part, known)
    return gradient


def masked_sum_(gradient: Tensor, other: Tensor, above: Tensor) -> Tensor:
    """`masked` of the sum of two gradients, written into the memory of the first."""
    for part, more, known in _blocks(gradient, other, above):
        _pass(part.add_(more), known)
    return gradient


def rectified_sum_(values: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU of a sum, written into the memory of its first term, and a mask of where the result is above 0.

    Example:
        >>> rectified_sum_(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 1.0, -0.5]))
        (tensor([2., 0., 0.]), tensor([ True, False, False]))
    """
    above = torch.empty_like(values, dtype=torch.bool)
    for part, more, known in _blocks(values, other, above):
        known.copy_(part.add_(more).relu_())
    return values, above


def _pass(gradient: Tensor, above: Tensor) -> None:
    # As integers, whose product with 0 or 1 is all bits or none; operators on bool and floating values are ten times
    # slower.
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[gradient.itemsize]
    gradient.view(integers).mul_(above.view(torch.uint8).to(integers))


def _blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Tensors of one shape in parts of `BLOCK` values; whole, if they do not lie in memory in the same order."""
    if all(tensor.is_contiguous() for tensor in tensors):
        flat = [tensor.view(-1) for tensor in tensors]
    elif all(tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors):
        flat = [tensor.permute(0, 2, 3, 1).view(-1) for tensor in tensors]
    else:
        return [tensors]
    return zip(*(values.split(BLOCK) for values in flat), strict=True)


def unpooled(
    gradient: Tensor, places: Tensor, size: list[int], kernel: list[int], stride: list[int], padding: list[int],
    dilation: list[int], ceil: bool,
) -> Tensor:  # fmt: skip
    """Gradient of max pooling, from the places of the maxima; the values of the images are not needed.

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
    images = torch.empty(size, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    result: Tensor = aten.max_pool2d_with_indices_backward(
        gradient, images, kernel, stride, padding, dilation, ceil, places.long()
    )
    return result


def mask_maxima(graph: fx.Graph) -> None:
    """Let the gradient of a ReLU before max pooling use the maxima, and that of the pooling no values at all.

    Only maxima get a gradient, and at these places ReLU's result is the maximum: so the gradient can be masked before
    it is spread over the images.
    """
    for node in calls(graph, _MAXIMA_GRADIENT):
        gradient, images, kernel, stride, padding, dilation, ceil, places = arguments(node)
        user, pooled = only_user(node), arguments(places)[0]
        if pooled.target != _MAXIMA or len(shape(images)) != 4:
            continue
        if user is not None and user.target == _RELU_GRADIENT and arguments(user)[1:] == (images, 0):
            value = gradient.meta["val"]
            maxima = next((result for result in pooled.users if arguments(result)[1] == 0), None)
            if maxima is not None:
                replace(user, node)
                gradient = call(node, value, _RELU_GRADIENT, gradient, maxima, 0)
        settings = list(shape(images)), kernel, stride, padding, dilation, ceil
        replace(node, call(node, node.meta["val"], unpooled, gradient, places, *settings))


def keep_less(graph: fx.Graph, forward: set[fx.Node]) -> set[fx.Node]:
    """Keep masks in place of ReLU's results, and 32-bit places of maxima, where the backward pass needs no more.

    Args:
        graph: the graph of both passes.
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
                user.target, user.args = masked, user.args[:2]
        elif later and all(user.target is unpooled and arguments(user)[0] is not node for user in later):
            added.add(_instead(node, later, torch.int32))
    return added


def join_sums(graph: fx.Graph) -> None:
    """Compute sums together with the ReLU, or its gradient, that follows: block by block, while in the cache."""
    for node in calls(graph, aten.add_.Tensor):
        operands, user = arguments(node), only_user(node)
        if user is None or node.kwargs or not all(is_tensor(operand) and _alike(operand, node) for operand in operands):
            continue
        if user.target is masked_ and arguments(user)[0] is node:
            user.target, user.args = masked_sum_, (*operands, arguments(user)[1])
            graph.erase_node(node)
        masks = [after for after in user.users if after.target == TO_COPY and after.kwargs == {"dtype": torch.bool}]
        if user.target == aten.relu_.default and masks:
            pair = call(user, (user.meta["val"], masks[0].meta["val"]), rectified_sum_, *operands)
            for number, result in enumerate((user, masks[0])):
                replace(result, call(result, result.meta["val"], operator.getitem, pair, number))
            graph.erase_node(node)


def _alike(first: fx.Node, second: fx.Node) -> bool:
    return shape(first) == shape(second) and dtype(first) == dtype(second)


def _is_relu(node: fx.Node) -> bool:
    """Whether these are results of ReLU, or maxima of them: none is below 0."""
    if node.target is operator.getitem:
        source, number = arguments(node)
        return number == 0 and source.target == _MAXIMA and _is_relu(arguments(source)[0])
    return node.target == _RELU


def _needs_a_mask(user: fx.Node, node: fx.Node) -> bool:
    return user.target == _RELU_GRADIENT and arguments(user)[0] is not node and arguments(user)[2] == 0


def _instead(node: fx.Node, users: list[fx.Node], kind: torch.dtype) -> fx.Node:
    """The node's values in another type, in its place for some of its users."""
    short = call(node.next, node.meta["val"].to(kind), TO_COPY, node, dtype=kind)
    for user in users:
        user.replace_input_with(node, short)
    return short

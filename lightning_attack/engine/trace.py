"""A network as a graph of ATen operators for one shape of images, and that graph with the gradient of the images."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functionalize
from torch.overrides import TorchFunctionMode

from lightning_attack.engine.graphs import (
    UnsupportedError,
    arguments,
    call,
    calls,
    cleaned,
    dtype,
    is_tensor,
    only_user,
    outputs,
    replace,
    shape,
)
from lightning_attack.engine.internals import TO_COPY, UNSAFE_VIEW, FakeTensorMode, OpOverload, make_fx
from lightning_attack.engine.masks import keep_less, mask_maxima
from lightning_attack.engine.resizing import join_lookups

aten = torch.ops.aten

CPU = torch.device("cpu")

_NOTHING = (aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default)
"""Operators that return what they are given: nothing in a graph is written to, and networks are in eval mode."""


def trace_forward(network: nn.Module, images: tuple[int, ...], device: torch.device = CPU) -> fx.GraphModule:
    """What a network in eval mode does with images of one shape, on the device where it is.

    It is run on tensors without values, so this costs little memory and time. The images ask for a gradient: attention
    on CUDA keeps what its gradient needs only if it is told at once.
    """

    def recorded(images: Tensor) -> Any:
        with torch.enable_grad():
            return network(images.detach().requires_grad_())

    return traced(recorded, images, device=device)


def trace_joint(forward: fx.GraphModule, images: tuple[int, ...], device: torch.device = CPU) -> fx.GraphModule:
    """(images, gradient of the logits) -> (logits, gradient of the images), from the graph of the logits."""

    def joint(images: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        images = images.detach().requires_grad_()
        logits = forward(images)
        return logits, torch.autograd.grad(logits, images, gradient)[0]

    with torch.enable_grad():
        module = traced(joint, images, shape(outputs(forward)[0]), device=device)
    _mask_by_results(module.graph)
    mask_maxima(module.graph)
    return cleaned(module)


def split(joint: fx.GraphModule, masks: bool = True) -> tuple[fx.GraphModule, fx.GraphModule, fx.GraphModule]:
    """The parts of `trace_joint`.

    The first gives (logits, *kept) of the images. The second takes the gradient of the logits to where it is smallest,
    mostly from before they were resized. The third gives the gradient of the images, given (*kept, that gradient).
    What the logits do not need is left to the backward pass; what both need is kept.

    Args:
        joint: the graph of both passes.
        masks: keep masks in place of values where the backward pass needs no more: a quarter of the memory.
    """
    images, gradient = (node for node in joint.graph.nodes if node.op == "placeholder")
    logits, result = outputs(joint)
    first = {images}
    todo = [logits]
    while todo:
        node = todo.pop()
        if node not in first:
            first.add(node)
            todo += node.all_input_nodes
    # One of several results of an operator, such as the places of maxima, is kept as a tensor of its own.
    first |= {node for node in calls(joint.graph, operator.getitem) if arguments(node)[0] in first}
    if masks:
        first |= keep_less(joint.graph, first)
    later = [node for node in joint.graph.nodes if node not in first and node.op != "output"]
    used = {node for user in later for node in user.all_input_nodes}
    kept = [node for node in joint.graph.nodes if node in first & used and node.op != "get_attr"]
    if not all(map(is_tensor, kept)):
        raise UnsupportedError("the backward pass needs a result that is no tensor")
    small = _smallest(gradient)
    forward, back = _part(joint, [images], [logits, *kept]), _part(joint, [*kept, small], result)
    return forward, _part(joint, [gradient], small), back


def _smallest(gradient: fx.Node) -> fx.Node:
    """The smallest of the results that come of the gradient of the logits alone, one after the other."""
    chain = [gradient]
    while (user := only_user(chain[-1])) is not None and user.all_input_nodes == chain[-1:] and is_tensor(user):
        chain.append(user)
    return min(chain, key=lambda node: node.meta["val"].nbytes)


def _part(joint: fx.GraphModule, inputs: list[fx.Node], result: fx.Node | list[fx.Node]) -> fx.GraphModule:
    """The part of a graph between some of its nodes."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = node.meta
    needed, todo = set(), [result] if isinstance(result, fx.Node) else list(result)
    while todo:
        node = todo.pop()
        if node not in needed and node not in copies:
            needed.add(node)
            todo += node.all_input_nodes
    for node in joint.graph.nodes:
        if node in needed:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(fx.map_arg(result, copies.__getitem__))
    return fx.GraphModule(joint, graph)


def traced(
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> fx.GraphModule:
    """What a function does with tensors of these shapes, as a graph without writes and of any memory layout.

    Raises:
        UnsupportedError: an operator's result depends on the layout in memory.
        Exception: whatever the function raises when its tensors have no values, as in `if x.max() > 1`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        examples = [torch.empty(shape, device=device, dtype=dtype) for shape in shapes]

    def trace(function: Callable[..., Any]) -> fx.GraphModule:
        with _IdleDetach():
            return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)

    module = trace(function)
    if any(isinstance(node.target, OpOverload) and node.target._schema.is_mutable for node in module.graph.nodes):
        module = trace(functionalize(module))
    for node in calls(module.graph, aten.as_strided.default, aten.as_strided_.default):
        if not _same_layout(node):
            raise UnsupportedError(f"{node.target} depends on the layout of its input in memory")
        replace(node, arguments(node)[0])
    for node in calls(module.graph, aten.copy.default):
        replace(node, _copied(node))
    for node in calls(module.graph, *_NOTHING):
        replace(node, arguments(node)[0])
    join_lookups(module.graph)
    for node in calls(module.graph, aten.view.default, UNSAFE_VIEW):
        node.target = aten.reshape.default  # a view of this layout may need a copy in another one
    return cleaned(module)


class _IdleDetach(TorchFunctionMode):
    """Leave out `detach_` where there is nothing to detach: of a view it fails even then.

    `torch.export` writes it behind every constant that a forward pass makes, as `torch.tensor([0.5, 0.5, 0.5])`.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (aten.detach_.default, Tensor.detach_) and not args[0].requires_grad:
            return args[0]
        return func(*args, **(kwargs or {}))


def _copied(node: fx.Node) -> fx.Node:
    """What `copy` gives, without what it writes over, which has no gradient: the values in its type and shape."""
    value, result = arguments(node)[1], node.meta["val"]
    if dtype(value) != result.dtype:
        value = call(node, result.new_empty(shape(value)), TO_COPY, value, dtype=result.dtype)
    if shape(value) != shape(node):
        value = call(node, result, aten.expand.default, value, list(shape(node)))
    return value  # type: ignore[no-any-return]


def _same_layout(node: fx.Node) -> bool:
    """Whether `as_strided` gives its input back, as where it only settles the strides of dimensions of length 1."""
    before, size, stride, *offset = arguments(node)
    value = before.meta["val"]
    places = zip(value.shape, value.stride(), stride, strict=True)
    return list(value.shape) == list(size) and not any(offset) and all(a == b or n == 1 for n, a, b in places)


def _mask_by_results(graph: fx.Graph) -> None:
    """Let the gradient of clipping use its results, which are kept anyway, in place of its inputs (as ReLU's does)."""
    for node in calls(graph, aten.hardtanh_backward.default):
        gradient, before, *limits = arguments(node)
        for user in before.users:
            if user.target == aten.hardtanh.default and list(arguments(user)[1:]) == limits:
                node.args = (gradient, user, *limits)
                break

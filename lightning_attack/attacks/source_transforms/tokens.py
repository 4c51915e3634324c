"""Source transform of the gradients of tokens in attention and in what follows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.source_transforms.attention import (
    PRODUCTS,
    SHAPING,
    SOFTMAXES,
    attention,
    hands_on,
    product_after,
)
from lightning_attack.attacks.source_transforms.base import SourceTransform, check_names, check_share
from lightning_attack.attacks.source_transforms.connections import branch_of, residuals
from lightning_attack.attacks.source_transforms.graph import WEIGHTED, Change, SourceGraph, operator
from lightning_attack.attacks.source_transforms.surrogate import mixed, with_gradient_of
from lightning_attack.engine.graphs import arguments

aten = torch.ops.aten
SCALING = (aten.mul, aten.div, aten.add, aten.sub)
"""What may lie between the product of queries and keys and the softmax: a scale, a bias, a mask."""
MATRICES = (aten.addmm, aten.mm, aten.linear, *PRODUCTS)
"""Products of a linear layer: of all tokens as one matrix, or image by image where they do not lie side by side."""


class TokenGradients(SourceTransform):
    """TGR: smaller gradients in transformer blocks, and none of the tokens whose gradient is the largest or smallest.

    Source: J. Zhang, Y. Huang, W. Wu, M. R. Lyu, "Transferable Adversarial Attacks on Vision Transformers with Token
    Gradient Regularization", CVPR 2023, arXiv 2303.15754, and its released code.

        weights of attention     g <- attention * g,   0 in the row and the column of the largest and smallest entry
        queries, keys, values    g <- qkv * g,         0 of the tokens with the largest and smallest entry, per channel
        output of an MLP         g <- mlp * g,         likewise

    Rows and columns are those of each head. It is found in a graph as torch's fused attention, which is then computed a
    second time with all of its weights for the way back, and as a softmax whose result is multiplied with a matrix; an
    MLP is a residual branch of two or more products with matrices, without attention. Tokens are those that attend to
    each other: with attention in windows (Swin) extremes are those of each window. Attention without a softmax
    (EfficientViT's linear one) has nothing to change.

    Departs from the released code in one point: in eval mode its hook on the dropout of the weights gets the gradient
    at what the softmax is given, and zeroes that; here it is the gradient at the weights. With `strength` below 1 the
    gradient at each place is strength times that of the formula plus 1 - strength times its own.

    The paper's own arguments: eps 16/255, steps of 1.6/255, 10 steps with momentum; attention 0.25, qkv 0.75, and for
    the MLP 0.5 in the released code.

    Args:
        attention: factor of the gradient at the weights of attention, in [0, 1].
        qkv: factor at queries, keys and values, in [0, 1].
        mlp: factor at the output of an MLP, in [0, 1].
        start: depth from which attention and MLPs are changed, in [0, 1], see `SourceGraph`.
        nodes: names of the attention (softmaxes, or fused attention, which has another name on CUDA than on the CPU)
            and of the outputs of MLPs to change in place of those from `start` on; `auto` names none.
        strength: share of the regularized gradient, in [0, 1]; 0 changes nothing.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has no such attention, or nothing of such a name.
    """

    nodes: Sequence[str] = (AUTO,)
    strength: float = 1.0

    def __init__(
        self,
        attention: float = 0.25,
        qkv: float = 0.75,
        mlp: float = 0.5,
        start: float = 0.0,
        nodes: Sequence[str] = (AUTO,),
        strength: float = 1.0,
    ) -> None:
        self.attention, self.qkv = check_share("attention", attention), check_share("qkv", qkv)
        self.mlp, self.start = check_share("mlp", mlp), check_share("start", start)
        if check_names(nodes) != [AUTO]:  # auto and 1 are not noted: settings stay those of earlier runs
            self.nodes = list(nodes)
        if check_share("strength", strength) != 1:
            self.strength = strength

    @property
    def idle(self) -> bool:
        return self.strength == 0

    def rewrite(self, graph: SourceGraph) -> None:
        found = attention(graph)
        mlps = _mlps(graph, found)
        wanted = graph.find(self, "attention with a softmax", found, self.start, self.nodes, named=[*found, *mlps])
        if self.nodes == (AUTO,):
            wanted += [node for node in mlps if graph.depth(node) >= self.start]
        for node in wanted:
            if node in mlps:
                graph.follow(node, self._regularized(self.mlp, _of_places))
            elif operator(node) in SOFTMAXES:
                self._apart(graph, node)
            else:
                self._joined(graph, node)

    def _apart(self, graph: SourceGraph, softmax: fx.Node) -> None:
        """Attention of operators of its own: two products, and a softmax between them."""
        before, after = _product_before(softmax), product_after(softmax)
        graph.follow(softmax, self._regularized(self.attention, _rows_and_columns))
        if before is not None:  # a sum over the channels of queries and keys
            queries, keys = _factors(before)
            graph.before(before, queries, self._of_tokens(self.qkv, -1))
            graph.before(before, keys, self._of_tokens(self.qkv, -2))
        if after is not None:  # a sum over the tokens of the values, which are the left factor where all is turned
            left, right = _factors(after)
            turned = not _is_shape_of(left, softmax)
            graph.before(after, left if turned else right, self._of_tokens(self.qkv, -2 if turned else -1))

    def _joined(self, graph: SourceGraph, node: fx.Node) -> None:
        """Attention as one operator: what it computes stays, its gradient is that of the operators it stands for."""
        queries, keys, values, *others = arguments(node)
        settings: dict[str, Any] = dict(node.kwargs)
        # On the CPU a mask has a name, on CUDA it is the fourth argument.
        biases = [one for one in (settings.get("attn_mask"), *others[:1]) if isinstance(one, fx.Node)]
        change = partial(self._of_joined, scale=settings.get("scale"))
        for output in [user for user in node.users if user.args[1] == 0]:
            graph.follow(output, change, queries, keys, values, *biases)

    def _of_joined(
        self, value: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, scale: float | None
    ) -> Tensor:
        q, k, v = (self._of_tokens(self.qkv, -1)(one) for one in (q, k, v))
        products = q @ k.mT * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        weights = (products if bias is None else products + bias).softmax(-1)
        weights = self._regularized(self.attention, _rows_and_columns)(weights)
        return with_gradient_of(value, (weights @ v).to(value.dtype))

    def _of_tokens(self, factor: float, channels: int) -> Change:
        return self._regularized(factor, partial(_tokens, channels=channels))

    def _regularized(self, factor: float, extremes: Extremes) -> Change:
        return lambda value: _Regularized.apply(value, factor, extremes, self.strength)


Extremes = Callable[[Tensor], Tensor]
"""A gradient to where it becomes 0."""


class _Regularized(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float, extremes: Extremes, strength: float) -> Tensor:
        ctx.factor, ctx.extremes, ctx.strength = factor, extremes, strength
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        # NaN stays: a broken gradient shall not pass for a weak attack.
        zero = ctx.extremes(gradient) & ~gradient.isnan()
        regularized = (ctx.factor * gradient).masked_fill(zero, 0)
        return mixed(gradient, regularized, ctx.strength), None, None, None


def _tokens(gradient: Tensor, channels: int) -> Tensor:
    """In each channel the tokens of the largest and the smallest gradient, (B, ..., tokens, channels) or turned."""
    axis = -2 if channels == -1 else -1
    zero = torch.zeros_like(gradient, dtype=torch.bool)
    for place in (gradient.argmax(axis, keepdim=True), gradient.argmin(axis, keepdim=True)):
        zero.scatter_(axis, place, True)
    return zero


def _of_places(gradient: Tensor) -> Tensor:
    """The same where tokens of an image lie in rows and columns, (B, ..., channels)."""
    return _tokens(gradient.flatten(1, -2), channels=-1).view_as(gradient)


def _rows_and_columns(gradient: Tensor) -> Tensor:
    """Of each head (..., rows, columns) the rows and columns of the largest and of the smallest gradient."""
    columns = gradient.shape[-1]
    zero = torch.zeros_like(gradient, dtype=torch.bool)
    flat = gradient.flatten(-2)
    for place in (flat.argmax(-1, keepdim=True), flat.argmin(-1, keepdim=True)):
        zero.scatter_(-2, (place // columns)[..., None].expand(*place.shape[:-1], 1, columns), True)
        zero.scatter_(-1, (place % columns)[..., None].expand(*place.shape[:-1], gradient.shape[-2], 1), True)
    return zero


def _product_before(softmax: fx.Node) -> fx.Node | None:
    """The product of queries and keys."""
    todo = list(softmax.all_input_nodes)
    while todo:
        node = todo.pop(0)
        if operator(node) in PRODUCTS:
            return node
        if hands_on(node) or operator(node) in SCALING:
            todo += node.all_input_nodes
    return None


def _factors(product: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The two matrices of a product."""
    left, right = arguments(product)[-2:] if operator(product) is aten.bmm else arguments(product)[1:3]
    return left, right


def _is_shape_of(node: object, origin: fx.Node) -> bool:
    """Whether a node is another one in another shape, or what was put behind it."""
    while isinstance(node, fx.Node) and node is not origin:
        if operator(node) is not None and operator(node) not in SHAPING:
            return False
        if not node.all_input_nodes:
            return False
        node = node.all_input_nodes[0]
    return node is origin


def _mlps(graph: SourceGraph, attention: Iterable[fx.Node]) -> list[fx.Node]:
    """Outputs of the last product with a matrix in each residual branch of several, without attention."""
    nodes, attending, found = list(graph.module.graph.nodes), {*attention}, []
    for addition, branch, _ in residuals(graph):
        own = branch_of(addition, branch)
        layers = [node for node in nodes if node in own and operator(node) in (*WEIGHTED, *PRODUCTS)]
        products = [node for node in layers if operator(node) in MATRICES]
        if len(products) > 1 and products[-1] is layers[-1] and not own & attending:
            found += _of_images(graph, products[-1])
    return found


def _of_images(graph: SourceGraph, product: fx.Node) -> list[fx.Node]:
    """What a product computes, with the images as the first axis, if it or the node that shapes it is that."""
    images = next(node for node in graph.module.graph.nodes if node.op == "placeholder").meta["val"]
    shaped = [product, *(user for user in product.users if operator(user) in SHAPING)]
    return [one for one in shaped if one.meta["val"].ndim > 2 and len(one.meta["val"]) == len(images)][:1]

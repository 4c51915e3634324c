"""Source transforms of attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.features import AUTO
from lightning_attack.attacks.source_transforms.base import SourceTransform, check_names, check_share
from lightning_attack.attacks.source_transforms.graph import SourceGraph, is_change, operator
from lightning_attack.attacks.source_transforms.surrogate import with_gradient_of
from lightning_attack.engine.graphs import arguments

aten = torch.ops.aten
JOINED = (
    aten._scaled_dot_product_flash_attention_for_cpu, aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_fused_attention_overrideable,
)  # fmt: skip
"""Attention as one operator, of queries, keys and values first."""
SOFTMAXES = (aten._softmax, aten._safe_softmax)
"""The second is that of torch's own attention where no fused one takes the tensors as they lie in memory."""
PRODUCTS = (aten.bmm, aten.baddbmm)
SHAPING = (
    aten.expand, aten.reshape, aten.view, aten._unsafe_view, aten.clone, aten._to_copy, aten.permute, aten.transpose,
    aten.t, aten.unsqueeze, aten.squeeze,
)  # fmt: skip


class FixedAttention(SourceTransform):
    """PNA: the gradient does not pass through the weights of attention, only through the values.

    Source: Z. Wei, J. Chen, M. Goldblum, Z. Wu, T. Goldstein, Y.-G. Jiang, "Towards Transferable Adversarial Attacks on
    Vision Transformers", AAAI 2022, arXiv 2109.04176. The same paper's PatchOut, steps on a part of the patches, is not
    in here.

        softmax(q k) v:   backward as if softmax(q k) were constant

    It is found in a graph as torch's fused attention, and as a softmax whose result is multiplied with a matrix.
    Attention without a softmax (EfficientViT's linear one) has nothing to change.

    Args:
        strength: share of the gradient of the weights that is dropped, in [0, 1]; 0 changes nothing, 1 is the paper's.
        start: depth from which attention is changed, in [0, 1], see `SourceGraph`.
        nodes: names of the softmaxes and of the fused attention to change in place of those from `start` on; `auto`
            names none. Fused attention has another name on CUDA than on the CPU.

    Raises:
        ValueError: an argument is out of range.
        AttackError: at the first pass, the source has no such attention, or none of such a name.
    """

    nodes: Sequence[str] = (AUTO,)

    def __init__(self, strength: float = 1.0, start: float = 0.0, nodes: Sequence[str] = (AUTO,)) -> None:
        self.strength, self.start = check_share("strength", strength), check_share("start", start)
        if check_names(nodes) != [AUTO]:  # auto is not noted: settings stay those of earlier runs
            self.nodes = list(nodes)

    @property
    def idle(self) -> bool:
        return self.strength == 0

    def rewrite(self, graph: SourceGraph) -> None:
        for node in graph.find(self, "attention with a softmax", attention(graph), self.start, self.nodes):
            if operator(node) in SOFTMAXES:
                graph.follow(node, self._fixed)
                continue
            if _is_computed_again(node):
                raise AttackError(
                    "TokenGradients computes fused attention a second time for its gradient, and FixedAttention does "
                    "not reach that: give FixedAttention before TokenGradients, such as to the preset tgr"
                )
            # By their places: where a network's values are its keys as well, the gradient keeps the way of the values.
            for place, inputs in enumerate(arguments(node)[:2]):  # queries, keys
                graph.before(node, inputs, self._fixed, place)

    def _fixed(self, value: Tensor) -> Tensor:
        return with_gradient_of(value, (1 - self.strength) * value)


def attention(graph: SourceGraph) -> list[fx.Node]:
    """Fused attention, and the softmaxes of attention that is written out."""
    return [*graph.all(*JOINED), *filter(product_after, graph.all(*SOFTMAXES))]


def _is_computed_again(fused: fx.Node) -> bool:
    """Whether the gradient of fused attention is that of something else, which takes the same queries."""
    queries = arguments(fused)[0]
    return any(is_change(user) and user.args[0] is not queries for user in queries.users)


def product_after(softmax: fx.Node) -> fx.Node | None:
    """The product of a softmax's result, which may be reshaped before, with a matrix; None where there is none."""
    todo = list(softmax.users)
    while todo:
        node = todo.pop(0)
        if operator(node) in PRODUCTS:
            return node
        if hands_on(node):
            todo += node.users
    return None


def hands_on(node: fx.Node) -> bool:
    """Whether a node hands on what it is given: in another shape, or as a source transform changes it."""
    return operator(node) in SHAPING or is_change(node)

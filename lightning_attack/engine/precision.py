"""A network's graph with its convolutions and matrix products in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from lightning_attack.engine.graphs import constant
from lightning_attack.engine.internals import ATTENTION
from lightning_attack.engine.trace import CPU, traced

aten = torch.ops.aten

_PRODUCTS = {
    aten.convolution.default, aten.addmm.default, aten.mm.default, aten.bmm.default, aten.baddbmm.default,
    *ATTENTION,
}  # fmt: skip

_WIDE = aten.native_group_norm.default
"""Computed in float32: its gradient in bfloat16 is five times slower."""


def to_bfloat16(module: fx.GraphModule, images: tuple[int, ...], device: torch.device = CPU) -> fx.GraphModule:
    """The forward graph with weights and activations in bfloat16, from the first product to the last one.

    What comes before the first convolution or matrix product (normalisation) and after the last one (resizing of the
    logits) stays in float32, and so do images and logits themselves.

    Args:
        module: the graph.
        images: shape of the images.
        device: where the weights are.
    """
    with torch.no_grad():
        return traced(_Narrow(module).run, images, device=device)


class _Narrow(fx.Interpreter):
    """Runs a graph with the arguments of each operator cast to the type that it should compute in."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.before_products = {node for node in module.graph.nodes if node.target in _PRODUCTS}
        for node in reversed(module.graph.nodes):
            if any(user in self.before_products for user in node.users):
                self.before_products.add(node)
        # Converted before the graph is traced, so that they are real tensors and no part of it.
        self.narrow_weights = {
            str(node.target): value.to(torch.bfloat16)
            for node in module.graph.nodes
            if (value := constant(module, node)) is not None and value.dtype == torch.float32
        }

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return fx.map_arg(n.args[0], lambda node: self.env[node].float())
        if n.op != "call_function":
            return super().run_node(n)
        values = [self.env[node] for node in n.all_input_nodes]
        inner = any(isinstance(value, Tensor) and value.dtype == torch.bfloat16 for value in values)
        narrow = n.target in _PRODUCTS or (inner and n in self.before_products)
        wanted = torch.bfloat16 if narrow and n.target != _WIDE else torch.float32

        def cast(node: fx.Node) -> Any:
            value = self.env[node]
            if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.bfloat16):
                return value
            if node.op == "get_attr" and wanted == torch.bfloat16:
                return self.narrow_weights.get(str(node.target), value)
            return value.to(wanted)

        target: Any = n.target
        result = target(*fx.map_arg(n.args, cast), **fx.map_arg(n.kwargs, cast))
        if narrow and n.target == _WIDE:
            return result[0].to(torch.bfloat16), *result[1:]
        return result

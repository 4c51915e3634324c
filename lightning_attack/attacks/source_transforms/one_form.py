"""`in_one_form`: the graphs of a network have the same layers, of the same names, whatever the number of images."""

from __future__ import annotations

import math
from copy import copy

import torch
from torch import fx

from lightning_attack.attacks.source_transforms.channels import MATRICES
from lightning_attack.attacks.source_transforms.graph import above, operator
from lightning_attack.engine.graphs import call, calls

aten = torch.ops.aten


def in_one_form(module: fx.GraphModule) -> fx.GraphModule:
    """A graph in which a layer on tokens is one matrix product, and nodes are named and numbered by their operators.

    Tokens (B, N, C) that are no matrix in memory are multiplied with weights by `mm` if B is 1, and by `bmm` with B
    copies of the weights if it is more. So a graph of one image would have other layers than one of two, and their
    depths and random numbers would differ. Networks without products of matrices are left as they are.
    """
    graph = module.graph
    if not any(operator(node) in (*MATRICES, aten.bmm) for node in graph.nodes):
        return module
    for node in calls(graph, aten.bmm.default):
        weights = _before_copies(node.all_input_nodes[-1])
        if len(_shape(weights)) == 2 and not any(one.op == "placeholder" for one in above(weights)):
            _as_one_matrix(node, weights)
    graph.eliminate_dead_code()
    return fx.GraphModule(module, _named(graph))


def _before_copies(node: fx.Node) -> fx.Node:
    """The matrix of which a node holds copies, one for each image; the node itself if it is not of that kind."""
    size, one = _shape(node)[-2:], node
    while operator(one) in (aten.expand, aten.reshape) and _shape(one)[-2:] == size:
        one = one.all_input_nodes[0]
    return one if _shape(one) == size else node


def _as_one_matrix(product: fx.Node, weights: fx.Node) -> None:
    """Write a product of tokens with copies of weights as one of all tokens with the weights."""
    tokens = product.all_input_nodes[0]
    count, channels = math.prod(_shape(tokens)), _shape(tokens)[-1]
    while operator(tokens) in (aten.expand, aten.reshape):
        before = tokens.all_input_nodes[0]
        if _shape(before)[-1:] != (channels,) or math.prod(_shape(before)) != count:
            break
        tokens = before
    result, length = product.meta["val"], count // channels
    rows = call(product, result.new_empty(length, channels), aten.reshape.default, tokens, [-1, channels])
    matrix = call(product, result.new_empty(length, result.shape[-1]), aten.mm.default, rows, weights)
    for user in list(product.users):
        if operator(user) == aten.reshape:
            user.replace_input_with(product, matrix)
    if product.users:
        product.replace_all_uses_with(call(product, result, aten.reshape.default, matrix, list(result.shape)))


def _named(graph: fx.Graph) -> fx.Graph:
    """A copy whose nodes have the names of their operators, numbered in the order of execution."""
    named = fx.Graph()
    there: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        arguments = fx.map_arg((node.args, node.kwargs), there.__getitem__)
        kind = operator(node)
        name = node.name if kind is None else kind.__name__
        there[node] = named.create_node(node.op, node.target, *arguments, name, node.type)
        there[node].meta = copy(node.meta)
    return named


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of what a node computes; () if that is not known, or no tensor."""
    return tuple(getattr(node.meta.get("val"), "shape", ()))

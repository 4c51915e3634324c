"""Which sums of a network are residual connections."""

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import (
    AttackError,
    Draws,
    LinearBackward,
    PerturbationDecay,
    SkipGradients,
    SmoothBackward,
    SoftplusResiduals,
    changeable_nodes,
)
from lightning_attack.attacks.source_transforms.connections import activations_behind, residuals, sums
from lightning_attack.attacks.source_transforms.graph import SourceGraph, operator, shape_of
from lightning_attack.attacks.source_transforms.source import TransformedSource
from lightning_attack.engine.trace import traced
from tests.attacks.source_transforms.test_references import gradient


class Added(nn.Module):
    """Two branches and a skip connection, added in some order, and a ReLU behind the sum."""

    def __init__(self, add):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in [(3, 4), (4, 4), (4, 4), (4, 5), (4, 4)])
        self.add = add
        self.double().requires_grad_(False).eval()

    def forward(self, x):
        x = self.layers[0](x)
        stem = self.layers[4](x).relu()  # of both branches
        return self.layers[3](self.add(x, self.layers[1](stem).tanh(), self.layers[2](stem)).relu().sigmoid())


ORDERS = {
    "skip first": lambda x, f, g: x + f + g,
    "skip last": lambda x, f, g: f + g + x,
    "skip in the middle": lambda x, f, g: f + x + g,
    "branches together": lambda x, f, g: x + (f + g),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_skip_connection_may_be_added_to_several_branches(order):
    images = torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_hand = Added(lambda x, f, g: x + 0.3 * (f + g) + 0.7 * (f + g).detach())
    _, wanted = gradient(by_hand, images)
    for transform in (SkipGradients(0.3), SkipGradients(0.5, gamma_activated=0.3)):
        source = TransformedSource(Added(ORDERS[order]), [transform])
        _, found = gradient(lambda x, source=source: source(x, Draws([0, 1]), 0), images)
        assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-12)
    for transform in (LinearBackward(start=0.0), SoftplusResiduals(beta=None, shares=[0.4])):
        sources = [TransformedSource(Added(ORDERS[one]), [transform]) for one in (order, "branches together")]
        found, wanted = (
            gradient(lambda x, source=source: source(x, Draws([0, 1]), 0), images)[1] for source in sources
        )
        assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-12), type(transform).__name__
    activations = changeable_nodes(Added(ORDERS[order]), SmoothBackward(start=0, behind_sums=False), (6, 6))
    assert list(activations) == ["relu"], "that of the stem, not the one behind the sum"
    outputs = changeable_nodes(Added(ORDERS[order]), PerturbationDecay(), (6, 6))
    assert [name for name in outputs if name.startswith("add")] == ["add_1"], "the whole sum is the block's output"


class Beside(nn.Module):
    """Layers side by side."""

    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(count))

    def forward(self, x):
        return sum(layer(x) for layer in self.layers).relu()


class Groups(nn.Module):
    """Groups of channels of which each layer takes one, and what the layer before made of another (as in Res2Net)."""

    def __init__(self, divide):
        super().__init__()
        self.divide, self.first, self.last = divide, nn.Conv2d(3, 6, 1), nn.Conv2d(6, 3, 1)
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(2))

    def forward(self, x):
        one, two, three = self.divide(self.first(x))
        one = self.layers[0](one)
        two = self.layers[1](one + two)
        return self.last(torch.cat([one, two, three], 1))


DIVIDED = {
    "split": lambda x: x.split(2, 1), "chunk": lambda x: x.chunk(3, 1),
    "split by sizes": lambda x: x.split([2, 2, 2], 1),
    "slices": lambda x: (x[:, :2], x[:, 2:4], x[:, -2:]),
    "unbind": lambda x: x.unflatten(1, (3, 2)).unbind(1),
    "select": lambda x: [x.unflatten(1, (3, 2))[:, group] for group in range(3)],
    "index": lambda x: [x[:, [group, group + 1]] for group in (0, 2, 4)],
    "index_select": lambda x: [x.index_select(1, torch.tensor([group, group + 1])) for group in (0, 2, 4)],
}  # fmt: skip


class Gated(nn.Module):
    """Two layers side by side whose product is added to the way through a third one: none of them is behind another."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        return self.layers[0](x) + self.layers[1](x) * self.layers[2](x)


class Widened(nn.Module):
    """A branch whose result is added to each of several places."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(2))

    def forward(self, x):
        return x + self.layers[1](self.layers[0](x)).mean((2, 3), keepdim=True)


ALIKE = {f"{count} side by side": Beside(count) for count in (2, 3, 5)} | {
    "a product": Gated(), "another shape": Widened(), **{name: Groups(divide) for name, divide in DIVIDED.items()},
}  # fmt: skip


@pytest.mark.parametrize("model", ALIKE.values(), ids=ALIKE)
def test_sums_that_are_no_residual_connections(model):
    with pytest.raises(AttackError, match=r"SkipGradients changes residual connections .* has none"):
        changeable_nodes(model, SkipGradients(), (6, 6))


class Decoder(nn.Module):
    """A residual connection whose sum is added to coarser maps, and nowhere else, as in a DPT; then another one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        coarse = F.interpolate(self.layers[0](x[..., ::2, ::2]), scale_factor=2)
        x = coarse + (x + self.layers[1](x))
        return x + self.layers[2](x)


class Dual(nn.Module):
    """A skip connection of some of the channels that a layer made of the input, as in a DPN."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in [(3, 8), (3, 3), (3, 3)])

    def forward(self, x):
        return self.layers[0](x)[:, :3] + self.layers[2](self.layers[1](x))


@pytest.mark.parametrize(("model", "names"), [(Decoder(), ["add", "add_2"]), (Dual(), ["add"])])
def test_other_sums_with_a_residual_connection(model, names):
    module = traced(lambda x: [model(x.detach().requires_grad_())], (1, 3, 6, 6))
    assert [one.addition.name for one in residuals(SourceGraph(module, "net"))] == names


class Sum(nn.Module):
    """A sum of what some functions of the images and of layers compute."""

    def __init__(self, add):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(6))
        self.add = add

    def f(self, x, first=0):
        return self.layers[first + 1](self.layers[first](x).relu())

    def forward(self, x):
        return self.layers[5](self.add(self, x))


def within(net, x):
    y = net.f(x)
    return x + (y + net.f(y, 2))


def around(net, x):
    y = x + net.f(x)
    y = y + net.f(y, 2)
    return y + x.sigmoid()  # no layer on the way: the body is one branch of it


def beside_a_block(net, x):
    y = net.layers[0](x)
    return net.layers[4](x) + (y + net.f(y, 1))


SUMS = {
    "two blocks, one inside the other": (within, ["add", "add_1"]),
    "a skip around two blocks": (around, ["add", "add_1", "add_2"]),
    "a layer around a block": (beside_a_block, ["add", "add_1"]),
    "two skips": (lambda net, x: x + F.avg_pool2d(x, 3, 1, 1) + net.f(x), ["add_1"]),
    "the skip twice": (lambda net, x: x + x + net.f(x), ["add_1"]),
    "all channels": (lambda net, x: x.narrow(1, 0, 3) + net.f(x), ["add"]),
    "rows": (lambda net, x: x.split(3, 2)[0] + net.f(x)[:, :, :3], ["add"]),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_of_sums(name):
    add, names = SUMS[name]
    assert list(changeable_nodes(Sum(add), SkipGradients(), (6, 6))) == names


def test_they_are_found_behind_the_changes_of_other_transforms():
    net = Added(ORDERS["skip first"]).float()
    module = traced(lambda x: [net(x.detach().requires_grad_())], (1, 3, 6, 6))
    graph = SourceGraph(module, "net")
    found = residuals(graph)
    assert [(one.addition.name, one.total.name) for one in found] == [("add", "add_1"), ("add_1", "add_1")]
    for node in list(module.graph.nodes):
        if operator(node) is not None and shape_of(node) == (1, 4, 6, 6):
            graph.follow(node, torch.clone)
    for one in residuals(graph):
        graph.before(one.addition, one.branch, torch.clone)
    again = residuals(graph)
    assert [(one.addition, one.total) for one in again] == [(one.addition, one.total) for one in found]
    assert sums(graph) == [found[0].total]
    SmoothBackward(start=0.0).rewrite(graph)  # of the ReLU, by means of the sum
    assert [node.name for node in activations_behind(found[0].total)] == ["relu_1"]
    with pytest.raises(ValueError, match="'add_1' does not take what 'relu' computes"):
        graph.before(found[1].addition, graph.all(torch.ops.aten.relu)[0], torch.clone)


@pytest.mark.parametrize(
    ("name", "connections", "activated", "layers"),
    [
        ("resnet18", 8, 8, 23),
        ("tu-tf_efficientnet_lite0", 9, 0, 52),
        ("timm-res2net50_26w_4s", 16, 16, 86),
        ("mobileone_s0", 35, 35, 200),
    ],
)
def test_what_is_found_in_a_network(name, connections, activated, layers):
    """Residual connections, those with a layer on the skip as well, and none of the decoder's additions."""
    model = smp.FPN(name, encoder_weights=None, classes=5).eval()
    module = traced(lambda x: [model(x.detach().requires_grad_())], (1, 3, 64, 64))
    graph = SourceGraph(module, name)
    assert len(sums(graph)) == connections
    found = [activations_behind(addition) for addition in sums(graph)]
    assert len([nodes for nodes in found if nodes]) == activated
    assert {operator(node) for nodes in found for node in nodes} <= {torch.ops.aten.relu}
    for addition in sums(graph):
        graph.follow(addition, torch.clone)
    again = [activations_behind(addition) for addition in sums(graph)]
    assert again == found, "also if another transform has changed the sums"
    depths = [graph.depth(node) for node in graph.layers()]
    assert depths[0] == 0
    assert depths == sorted(depths)
    assert depths[-1] < 1
    assert len(depths) > layers

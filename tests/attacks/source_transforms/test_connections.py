"""Which sums of a network are residual connections."""

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import (
    AttackError,
    Draws,
    PerturbationDecay,
    SkipGradients,
    SmoothBackward,
    changeable_nodes,
)
from lightning_attack.attacks.source_transforms.connections import activations_behind, sums
from lightning_attack.attacks.source_transforms.graph import SourceGraph, operator
from lightning_attack.attacks.source_transforms.source import TransformedSource
from lightning_attack.engine.trace import traced
from tests.attacks.source_transforms.test_references import gradient


class Added(nn.Module):
    """Two branches and a skip connection, added in some order, and a ReLU behind the sum."""

    def __init__(self, add):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in [(3, 4), (4, 4), (4, 4), (4, 5)])
        self.add = add
        self.double().requires_grad_(False).eval()

    def forward(self, x):
        x = self.layers[0](x)
        return self.layers[3](self.add(x, self.layers[1](x).tanh(), self.layers[2](x)).relu())


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
    with pytest.raises(AttackError, match="but not behind the sums"):
        changeable_nodes(Added(ORDERS[order]), SmoothBackward(start=0, behind_sums=False), (6, 6))
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
}  # fmt: skip
ALIKE = {f"{count} side by side": Beside(count) for count in (2, 3, 5)} | {
    name: Groups(divide) for name, divide in DIVIDED.items()
}


@pytest.mark.parametrize("model", ALIKE.values(), ids=ALIKE)
def test_sums_that_are_no_residual_connections(model):
    with pytest.raises(AttackError, match=r"SkipGradients changes residual connections .* has none"):
        changeable_nodes(model, SkipGradients(), (6, 6))


class Decoder(nn.Module):
    """A residual connection whose sum is added to coarser maps, and nowhere else, as in a DPT."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        coarse = F.interpolate(self.layers[0](x[..., ::2, ::2]), scale_factor=2)
        x = self.layers[1](x)
        return coarse + (x + self.layers[2](x))


class Dual(nn.Module):
    """A skip connection of some of the channels that a layer made of the input, as in a DPN."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in [(3, 8), (3, 3), (3, 3)])

    def forward(self, x):
        return self.layers[0](x)[:, :3] + self.layers[2](self.layers[1](x))


@pytest.mark.parametrize("model", [Decoder(), Dual()])
def test_other_sums_with_a_residual_connection(model):
    assert list(changeable_nodes(model, SkipGradients(), (6, 6))) == ["add"]


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

"""Which nodes a source transform changes: from a depth on, or by name. Against the formulas, in float64."""

import math

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import (
    AttackError,
    CleanFeatureMixup,
    DiversifiedFeatures,
    Draws,
    FeatureNoise,
    FixedAttention,
    LinearBackward,
    PerturbationDecay,
    SkipGradients,
    SmoothBackward,
    SoftplusResiduals,
    TokenGradients,
    changeable_nodes,
)
from lightning_attack.attacks.base import describe
from lightning_attack.attacks.source_transforms.run import Run
from lightning_attack.attacks.source_transforms.source import TransformedSource
from lightning_attack.models import Ensemble
from tests.attacks.source_transforms.test_references import (
    CLASSES,
    SIDE,
    Linear,
    Network,
    Parts,
    Soft,
    bump,
    clean_features,
    gradient,
    images,
    sloped,
    transformed,
)

# Of the network's six layers, two run before the first sum, four before the ReLU6, and five before the second sum.


class SmoothAt(Parts):
    def __init__(self, place):
        self.place = place

    def relu(self, z, place):
        return sloped(z, F.relu(z), bump(z)) if place == self.place else F.relu(z)


class LinearAt(Linear):
    """The ReLU6 and the last ReLU."""

    def relu(self, z, place):
        return self.slope_1(z, F.relu(z)) if place == 2 else F.relu(z)

    def leaky(self, z, slope):
        return F.prelu(z, slope)


class SkipAt(Parts):
    def __init__(self, place):
        self.place = place

    def branch(self, f, z, place):
        return 0.2 * f(z) + 0.8 * f(z).detach() if place == self.place else f(z)


class SoftLate(Soft):
    """From the ReLU6 on."""

    def relu(self, z, place):
        return super().relu(z, place) if place in (0, 2) else F.relu(z)

    def leaky(self, z, slope):
        return F.prelu(z, slope)

    def branch(self, f, z, place):
        return 0.4 * f(z) if place == 1 else f(z)


class SoftLateStem(SoftLate):
    """`SoftLate` whose first ReLU is as it was; ReLU6 is made of place 0 of `Soft`."""

    stem = True

    def relu(self, z, place):
        if place == 0 and self.stem:
            self.stem = False
            return F.relu(z)
        return super().relu(z, place)


class SoftNamed(Parts):
    """The first residual connection and the last ReLU."""

    def relu(self, z, place):
        return (1 + torch.exp(20 * z)).log() / 20 if place == 2 else F.relu(z)

    def branch(self, f, z, place):
        return 0.9 * f(z) if place == 0 else f(z)


class NoisyAt(Parts):
    def __init__(self, names):
        self.names = names

    def layer(self, z, place):
        if place not in self.names:
            return z
        noise = Draws([7, 8]).normal(f"source 0 {self.names[place]} noise", z.shape[1:]).double()
        return z + 0.3 * z.detach().flatten(2).var(2, correction=0).sqrt()[..., None, None] * noise


class LevelledAt(Parts):
    def __init__(self, place):
        self.place = place

    def sum(self, z, place):
        if place != self.place:
            return z
        name = ("add", "add_1")[place]
        levelled = Draws([7, 8]).uniform(f"source 0 {name} diverse level", z.shape[1:]) < 0.5
        return torch.where(levelled, z.mean((2, 3), keepdim=True), z)


class DecayedAt(Parts):
    def __init__(self, kind, place):
        self.kind, self.at, self.clean = kind, place, clean_features(images(1))

    def changed(self, z, kind, place):
        return 0.25 * z + 0.75 * self.clean[kind, place] if (kind, place) == (self.kind, self.at) else z

    def layer(self, z, place):
        return self.changed(z, "layer", place)

    def sum(self, z, place):
        return self.changed(z, "sum", place)


CHOICES = {
    "bpa by name": (SmoothBackward(nodes=["relu_1"], temperature=None), lambda: SmoothAt(1)),
    "bpa from a depth": (SmoothBackward(start=0.8, temperature=None), lambda: SmoothAt(2)),
    "linbp by name": (LinearBackward(nodes=["relu_2", "hardtanh"]), LinearAt),
    "linbp from a depth": (LinearBackward(start=0.5), LinearAt),
    "sgm by name": (SkipGradients(nodes=["add"]), lambda: SkipAt(0)),
    "sgm from a depth": (SkipGradients(start=0.5), lambda: SkipAt(1)),
    "iaa by name": (SoftplusResiduals(shares=[0.9], nodes=["add", "relu_2"]), SoftNamed),
    "iaa from a depth": (SoftplusResiduals(shares=[0.4], start=0.5), SoftLateStem),
    "faug by name": (
        FeatureNoise(nodes=["convolution_5", "convolution_1"]),
        lambda: NoisyAt({1: "convolution_1", 5: "convolution_5"}),
    ),
    "faug from a depth": (FeatureNoise(at=0.6), lambda: NoisyAt({4: "convolution_4"})),
    "dhf by name": (DiversifiedFeatures(0.0, 0.5, nodes=["add"]), lambda: LevelledAt(0)),
    "dhf from a depth": (DiversifiedFeatures(0.0, 0.5, start=0.5), lambda: LevelledAt(1)),
    "ilpd by the name of a layer": (
        PerturbationDecay(0.25, 0.0, nodes=["convolution_2"]), lambda: DecayedAt("layer", 2)
    ),
    "ilpd by the name of a sum": (PerturbationDecay(0.25, 0.0, nodes=["add_1"]), lambda: DecayedAt("sum", 1)),
    "ilpd from a depth": (PerturbationDecay(0.25, 0.0, at=0.5), lambda: DecayedAt("sum", 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_these_nodes_are_changed_and_no_others(name):
    transform, reference = CHOICES[name]
    logits, found = transformed(Network(), transform)
    wanted_logits, wanted = gradient(Network(reference()), images())
    _, plain = gradient(Network(), images())
    assert torch.allclose(logits, wanted_logits, rtol=1e-10, atol=1e-12)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()


class Shrinking(nn.Module):
    """Layers of 12, 6 and 3 pixels a side, a product with 9 tokens, and a layer of 12 pixels again."""

    def __init__(self, change=lambda z, place, channels: z):
        super().__init__()
        torch.manual_seed(0)
        self.change = change
        widths = [(3, 4, 1), (4, 4, 2), (4, 4, 2), (4, CLASSES, 1)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride, padding=1) for a, b, stride in widths)
        self.product = nn.Linear(4, 4)
        self.double().requires_grad_(False).eval()

    def forward(self, x):
        for place in range(3):
            x = self.change(self.layers[place](x), place, 1).tanh()
        tokens = self.change(self.product(x.flatten(2).mT.contiguous()), 3, 2).tanh()
        x = F.interpolate(tokens.mT.reshape(x.shape), (SIDE, SIDE))
        return self.change(self.layers[3](x), 4, 1)


@pytest.mark.parametrize(("start", "mixed"), [(0.0, (2, 3)), (0.5, (3,))])
def test_clean_features_are_mixed_into_small_layers(start, mixed, monkeypatch):
    def uniform(run, key, like, shape, low=0.0, high=1.0):
        return torch.linspace(low, high, math.prod(shape), dtype=like.dtype).view(1, *shape)

    monkeypatch.setattr(Run, "uniform", uniform)  # coins are 0, and shares of the four channels 0, 1/4, 1/2 and 3/4
    clean = {}
    Shrinking(lambda z, place, channels: clean.setdefault(place, z))(images(1))

    def change(z, place, channels):
        shares = torch.tensor([0, 0.25, 0.5, 0.75]).view((4, 1, 1) if channels == 1 else (1, 4))
        return (1 - shares) * z + shares * clean[place] if place in mixed else z

    logits, found = transformed(Shrinking(), CleanFeatureMixup(start=start))
    wanted_logits, wanted = gradient(Shrinking(change), images())
    assert torch.allclose(logits, wanted_logits, rtol=1e-10, atol=1e-12)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()


class Nested(nn.Module):
    """A residual connection whose branch has a residual connection inside, as in a Res2Net."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in [(3, 4), (4, 4), (4, 4), (4, 4), (4, CLASSES)])
        self.double().requires_grad_(False).eval()

    def forward(self, x):
        stem, first, second, third, head = self.layers
        x = stem(x)
        branch = first(x).tanh()
        branch = branch + second(branch).tanh()
        return head((x + third(branch)).tanh())


class Straight(nn.Sequential):
    """A network without residual connections."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, CLASSES, 1))
        self.double().requires_grad_(False).eval()


def pyramid(encoder):
    """A network whose decoder is given the last features alone."""
    torch.manual_seed(0)
    model = smp.PSPNet(encoder, encoder_weights=None, classes=CLASSES)
    return model.double().eval().requires_grad_(False)


@pytest.mark.parametrize(
    "make",
    [Network, Nested, Straight, lambda: pyramid("resnet18"), lambda: pyramid("tu-convnext_atto")],
    ids=["small", "nested", "straight", "resnet18", "convnext"],
)
def test_no_perturbation_passes_by_the_layer_of_ilpd(make):
    """With next to nothing left of it there, the logits are those of the clean image."""
    side = SIDE if make in (Network, Nested, Straight) else 64
    model, clean = make(), torch.rand(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        source = TransformedSource(model, [PerturbationDecay(1e-12, sigma=0.0)])
        found, wanted, other = source(clean.flip(3), Draws([7, 8]), 0, clean), model(clean), model(clean.flip(3))
    assert (found - wanted).norm() <= 1e-8 * wanted.norm()
    assert (other - wanted).norm() > 1e-3 * wanted.norm()


ACTIVATIONS = ["relu", "relu_1", "_prelu_kernel", "hardtanh", "relu_2"]
SUMS = ["add", "add_1"]
LAYERS = ["convolution", "convolution_1", "convolution_2", "convolution_3", "convolution_4", "convolution_5"]
LISTED = [
    (SmoothBackward(), ACTIVATIONS), (LinearBackward(start=0.5), ACTIVATIONS), (SkipGradients(), SUMS),
    (SoftplusResiduals(), [*ACTIVATIONS, *SUMS]), (SoftplusResiduals(None), SUMS), (FeatureNoise(), LAYERS),
    (DiversifiedFeatures(), SUMS), (PerturbationDecay(), [*LAYERS, *SUMS]), (FixedAttention(), ["_softmax"]),
    (TokenGradients(), ["_softmax"]),
]  # fmt: skip


@pytest.mark.parametrize(("transform", "names"), LISTED, ids=lambda one: type(one).__name__)
def test_each_node_that_is_listed_can_be_named(transform, names):
    kind, settings = type(transform), vars(transform)
    model = Network()
    found = changeable_nodes(model, transform, (SIDE, SIDE))
    assert sorted(found) == sorted(names)
    assert list(found.values()) == sorted(found.values())
    for name in names:
        transformed(model, kind(**settings | {"nodes": [name]}))
    with pytest.raises(AttackError, match=r"none of the name 'nowhere' .*`changeable_nodes` lists"):
        transformed(model, kind(**settings | {"nodes": ["nowhere"]}))


def test_small_layers_are_mixed_by_themselves_and_others_by_name():
    """The layers of `Shrinking` are named as its graph has them: the product's result is a view of a matrix."""
    model = Shrinking()
    *names, last = changeable_nodes(model, CleanFeatureMixup(), (SIDE, SIDE))
    assert (len(names), names[:3], last) == (4, LAYERS[:3], LAYERS[3])
    logits, _ = transformed(model, CleanFeatureMixup(1.0, nodes=[last]))
    plain, _ = gradient(model, images())
    assert (logits - plain).abs().max() > 1e-3


def test_names_are_those_of_one_network_and_of_a_transform_that_changes_it():
    assert changeable_nodes(Network(), SkipGradients(start=0.5), (SIDE, SIDE)) == {"add": 2 / 6, "add_1": 5 / 6}
    with pytest.raises(ValueError, match="SkipGradients changes nothing with these settings"):
        changeable_nodes(Network(), SkipGradients(gamma=1.0), (SIDE, SIDE))
    with pytest.raises(AttackError, match="each network has nodes of its own"):
        changeable_nodes(Ensemble([Network(), Network()], by="loss"), SkipGradients(), (SIDE, SIDE))
    with pytest.raises(AttackError, match="changes attention with a softmax, and 'Straight' has none"):
        changeable_nodes(Straight(), FixedAttention(), (SIDE, SIDE))


def test_what_is_left_at_its_default_is_not_among_the_settings():
    """So that runs of versions without these options are known again."""
    found = [describe(kind()) for kind in (SkipGradients, SoftplusResiduals, FixedAttention, TokenGradients)]
    assert found == [
        {"class": "SkipGradients", "gamma": 0.2, "start": 0.0, "required": True},
        {"class": "SoftplusResiduals", "beta": 20.0, "shares": [0.98, 0.87, 0.73, 0.19]},
        {"class": "FixedAttention", "strength": 1.0, "start": 0.0},
        {"class": "TokenGradients", "attention": 0.25, "qkv": 0.75, "mlp": 0.5, "start": 0.0},
    ]
    for kind in (SmoothBackward, LinearBackward):
        assert "behind_sums" not in describe(kind())
        assert describe(kind(behind_sums=False))["behind_sums"] is False
    assert describe(SkipGradients(gamma_activated=0.7))["gamma_activated"] == 0.7
    assert describe(CleanFeatureMixup()) == {"class": "CleanFeatureMixup", "prob": 0.1, "mix": 0.75, "nodes": ["auto"]}
    given = describe(SoftplusResiduals(start=0.5, nodes=["add"]))
    assert given["start"] == 0.5
    assert given["nodes"] == ["add"]

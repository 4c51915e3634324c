"""Each source transform against its formula, written out by hand, on a small network in float64."""

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from lightning_attack.attacks import (
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
    pgd,
)
from lightning_attack.attacks.source_transforms.run import Run
from lightning_attack.attacks.source_transforms.source import TransformedSource
from tests.attacks.toys import half_right, scene

BATCH, SIDE, CLASSES = 2, 12, 5


class Parts:
    """What a network is made of; a reference replaces some of it."""

    def relu(self, z, place):
        return F.relu(z)

    def relu6(self, z):
        return F.relu6(z)

    def leaky(self, z, slope):
        return F.prelu(z, slope)

    def pool(self, z):
        return F.max_pool2d(z, 3, 2, padding=1, ceil_mode=True)

    def branch(self, f, z, place):
        return f(z)

    def softmax(self, z):
        return z.softmax(-1)

    def layer(self, z, place):
        return z

    def sum(self, z, place):
        return z


class Network(nn.Module):
    """Five convolutions, two residual connections, all activations of straight pieces, pooling, attention."""

    def __init__(self, parts=None):
        super().__init__()
        torch.manual_seed(0)
        self.parts = parts or Parts()
        widths = [(3, 4, 3), (4, 4, 3), (4, 4, 3), (4, 4, 1), (4, CLASSES, 1)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2) for a, b, k in widths)
        self.slope = nn.Parameter(torch.tensor([0.3, -0.1, 0.2, 0.5]))
        self.double().requires_grad_(False).eval()
        for layer in self.layers:
            layer.weight.mul_(3)

    def forward(self, x):
        do = self.parts
        x = do.relu(do.layer(self.layers[0](x), 0), 0)
        x = do.pool(x)
        x = do.sum(x + do.branch(self.first, x, 0), 0)
        x = do.leaky(x, self.slope)
        # As where a ResNet changes the size: one layer on the way of the skip connection.
        x = do.sum(do.layer(self.layers[3](x), 2) + do.branch(self.second, x, 1), 1)
        tokens = x.flatten(2)
        x = (do.softmax(tokens @ tokens.mT / 9) @ tokens).view_as(x)
        return do.layer(self.layers[4](do.relu(x, 2)), 5)

    def first(self, x):
        return self.parts.relu(self.parts.layer(self.layers[1](x), 1), 1)

    def second(self, x):
        return self.parts.layer(self.layers[3](self.parts.relu6(self.parts.layer(self.layers[2](x), 3))), 4)


def gradient(source, x):
    """Logits, and the gradient of a fixed combination of them."""
    x = x.detach().requires_grad_()
    logits = source(x)
    weights = torch.linspace(-1, 2, logits.numel(), dtype=x.dtype).view_as(logits)
    return logits, torch.autograd.grad((logits * weights).sum(), x)[0]


def transformed(model, *transforms):
    """The same of a model with source transforms."""
    source = TransformedSource(model, transforms)
    clean = images(1) if any(transform.needs_clean for transform in transforms) else None
    return gradient(lambda x: source(x, Draws([7, 8]), 0, clean), images())


def images(seed=0):
    return torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Sloped(Function):
    """An activation with a slope of its own on the way back."""

    @staticmethod
    def forward(ctx, z, value, slope):
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx, given):
        return given * ctx.saved_tensors[0], None, None


def sloped(z, value, slope):
    return Sloped.apply(z, value.detach(), slope.detach())


def bump(z):
    s = 1 / (1 + torch.exp(-z))
    return s * (1 + z * (1 - s))


class Windows(Function):
    """Maximum pooling, 3 x 3 by steps of 2, whose gradient is shared by softmax(10 z): window by window."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return F.max_pool2d(z, 3, 2, padding=1, ceil_mode=True)

    @staticmethod
    def backward(ctx, given):
        (z,) = ctx.saved_tensors
        result = torch.zeros_like(z)
        for i in range(given.shape[2]):
            for j in range(given.shape[3]):
                rows, columns = slice(max(0, 2 * i - 1), 2 * i + 2), slice(max(0, 2 * j - 1), 2 * j + 2)
                window = z[..., rows, columns]
                share = (10 * window).flatten(2).softmax(2).view_as(window)
                result[..., rows, columns] += share * given[..., i : i + 1, j : j + 1]
        return result


class Smooth(Parts):
    """BPA from depth `start` on: of the ReLUs (0 in front of everything else) those at `places`."""

    share = 1.0

    def __init__(self, places=(0, 1, 2)):
        self.places = places

    def mix(self, z, value, true, smooth):
        return sloped(z, value, (1 - self.share) * true + self.share * smooth)

    def relu(self, z, place):
        return self.mix(z, F.relu(z), (z > 0).double(), bump(z)) if place in self.places else F.relu(z)

    def relu6(self, z):
        return self.mix(z, F.relu6(z), ((z > 0) & (z < 6)).double(), bump(z) - bump(z - 6))

    def leaky(self, z, slope):
        a = slope.view(-1, 1, 1)
        return self.mix(z, F.prelu(z, slope), torch.where(z > 0, 1, a), a + (1 - a) * bump(z))

    def pool(self, z):
        return Windows.apply(z)


class Inside(Smooth):
    """All but the activation behind the first sum; something else follows the second one."""

    def leaky(self, z, slope):
        return F.prelu(z, slope)


class Half(Smooth):
    share = 0.5

    def pool(self, z):
        return 0.5 * Windows.apply(z) + 0.5 * F.max_pool2d(z, 3, 2, padding=1, ceil_mode=True)


class Linear(Parts):
    linear = True

    def relu(self, z, place):
        return self.slope_1(z, F.relu(z)) if place else F.relu(z)  # the first is before `start`

    def relu6(self, z):
        return self.slope_1(z, F.relu6(z))

    def leaky(self, z, slope):
        return self.slope_1(z, F.prelu(z, slope))

    def slope_1(self, z, value):
        return sloped(z, value, torch.ones_like(z)) if self.linear else value

    def branch(self, f, z, place):
        return Rescaled.apply(z, f, self)


class Unscaled(Linear):
    def branch(self, f, z, place):
        return f(z)


class LinearInside(Linear):
    leaky = Parts.leaky  # follows the first sum


class Rescaled(Function):
    """A residual branch: each image's gradient is the linear one, as long as the true one."""

    @staticmethod
    def forward(ctx, z, f, parts):
        ctx.z, ctx.f, ctx.parts = z.detach().requires_grad_(), f, parts
        return f(z)

    @staticmethod
    def backward(ctx, given):
        found = {}
        for linear in (True, False):
            ctx.parts.linear = linear
            with torch.enable_grad():
                (found[linear],) = torch.autograd.grad(ctx.f(ctx.z), ctx.z, given)
        ctx.parts.linear = True
        scaled = [g * t.norm() / g.norm() for g, t in zip(found[True], found[False], strict=True)]
        return torch.stack(scaled), None, None


class Skip(Parts):
    gammas = 0.2, 0.2

    def branch(self, f, z, place):
        return self.gammas[place] * f(z) + (1 - self.gammas[place]) * f(z).detach()


class SkipActivated(Skip):
    gammas = 0.7, 0.5


class Soft(Parts):
    def relu(self, z, place):
        return (1 + torch.exp(20 * z)).log() / 20

    def relu6(self, z):
        return self.relu(z, 0) - self.relu(z - 6, 0)

    def leaky(self, z, slope):
        a = slope.view(-1, 1, 1)
        return a * z + (1 - a) * self.relu(z, 0)

    def branch(self, f, z, place):
        return (0.9, 0.4)[place] * f(z)


class Fixed(Parts):
    def softmax(self, z):
        return z.softmax(-1).detach()


class Noisy(Parts):
    def layer(self, z, place):
        if place:
            return z
        noise = Draws([7, 8]).normal("source 0 convolution noise", z.shape[1:]).double()
        return z + 0.3 * z.detach().flatten(2).var(2, correction=0).sqrt()[..., None, None] * noise


class Recording(Parts):
    """Features of the clean images at all layers and sums."""

    def __init__(self):
        self.seen = {}

    def layer(self, z, place):
        return self.seen.setdefault(("layer", place), z)

    def sum(self, z, place):
        return self.seen.setdefault(("sum", place), z)


def clean_features(clean):
    parts = Recording()
    Network(parts)(clean)
    return parts.seen


class Decayed(Parts):
    """The first sum of a residual connection: it has two of the six layers before it, so it is at depth 1/3."""

    def __init__(self):
        noise = Draws([7, 8]).normal("source clean", (3, SIDE, SIDE)).double()
        self.clean = clean_features(images(1) + 0.05 * noise)

    def sum(self, z, place):
        return 0.1 * z + 0.9 * self.clean["sum", 0] if place == 0 else z


class Diverse(Parts):
    def __init__(self):
        self.clean = clean_features(images(1))
        self.draws = Draws([7, 8])

    def sum(self, z, place):
        name = ("add", "add_1")[place]
        share = self.draws.uniform(f"source 0 {name} diverse mix", (1, 1, 1), high=0.2).double()
        z = (1 - share) * z + share * self.clean["sum", place]
        levelled = self.draws.uniform(f"source 0 {name} diverse level", z.shape[1:]) < 0.1
        return torch.where(levelled, z.mean((2, 3), keepdim=True), z)


class Mixed(Parts):
    """Two layers, by their names."""

    def __init__(self):
        self.names = {1: "convolution_1", 4: "convolution_4"}
        self.clean = clean_features(images(1))
        self.draws = Draws([7, 8])

    def layer(self, z, place):
        if place not in self.names:
            return z
        coins, shares = (
            self.draws.uniform(f"source 0 {self.names[place]} mixup {what}", (channels, 1, 1), high=high).double()
            for what, channels, high in (("coin", 1, 1.0), ("mix", z.shape[1], 0.75))
        )
        share = torch.where(coins < 0.6, shares, 0.0)
        return (1 - share) * z + share * self.clean["layer", place]


CASES = {
    "bpa": (SmoothBackward(start=0.0), Smooth),
    "bpa, half": (SmoothBackward(0.5, start=0.0), Half),
    "bpa, late": (SmoothBackward(start=0.3, temperature=10.0), lambda: Smooth((1, 2))),
    "bpa, but behind sums": (SmoothBackward(start=0.0, behind_sums=False), Inside),
    "linbp": (LinearBackward(start=0.3), Linear),
    "linbp, not rescaled": (LinearBackward(start=0.3, rescale=False), Unscaled),
    "linbp, but behind sums": (LinearBackward(start=0.3, behind_sums=False), LinearInside),
    "sgm": (SkipGradients(), Skip),
    "sgm, other in front of activations": (SkipGradients(0.5, gamma_activated=0.7), SkipActivated),
    "iaa": (SoftplusResiduals(shares=[0.9, 0.4]), Soft),
    "pna": (FixedAttention(), Fixed),
    "faug": (FeatureNoise(), Noisy),
    "ilpd": (PerturbationDecay(), Decayed),
    "dhf": (DiversifiedFeatures(), Diverse),
    "cfm": (CleanFeatureMixup(0.6, nodes=["convolution_1", "convolution_4"]), Mixed),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradient_are_those_of_the_formula(name):
    transform, reference = CASES[name]
    logits, found = transformed(Network(), transform)
    wanted_logits, wanted = gradient(Network(reference()), images())
    plain_logits, plain = gradient(Network(), images())
    assert torch.allclose(logits, wanted_logits, rtol=1e-10, atol=1e-12)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()
    if name.startswith(("bpa", "linbp", "sgm", "pna")):
        assert torch.equal(logits, plain_logits), "these change the way back alone"


def test_a_branch_that_is_computed_twice_has_all_other_changes_twice():
    """The length that LinBP gives the gradient of a branch does not depend on what is changed before or after it."""
    others = SkipGradients(), CleanFeatureMixup(0.6, nodes=["convolution_1", "convolution_4"])
    wanted_logits, plain = transformed(Network(), *others)
    linear = LinearBackward(start=0.3)
    found = [transformed(Network(), *order) for order in permutations([linear, *others])]
    for logits, gradients in found:
        assert torch.equal(logits, wanted_logits)
        assert torch.allclose(gradients, found[0][1], rtol=1e-10, atol=1e-10 * plain.abs().max())
    assert (found[0][1] - plain).abs().max() > 1e-3 * plain.abs().max()


IDLE = [
    SmoothBackward(strength=0.0), LinearBackward(strength=0.0), SkipGradients(gamma=1.0),
    SkipGradients(gamma=1.0, gamma_activated=1.0),
    SoftplusResiduals(beta=None, shares=[1.0]), FixedAttention(strength=0.0), FeatureNoise(sigma=0.0),
    DiversifiedFeatures(mix=0.0, level=0.0), PerturbationDecay(gamma=1.0), CleanFeatureMixup(prob=0.0),
    CleanFeatureMixup(mix=0.0), TokenGradients(strength=0.0),
]  # fmt: skip


def test_strength_0_is_the_plain_source_bit_for_bit():
    model = nn.Sequential(Network(), nn.Upsample((SIDE, SIDE)))
    pictures, labels = scene(2, SIDE, SIDE)
    labels = half_right(model, pictures, labels)
    plain = pgd(steps=3)(model, pictures, labels, [1, 2])
    for transform in IDLE:
        found = pgd(steps=3, source_transforms=[transform])(model, pictures, labels, [1, 2])
        assert torch.equal(found, plain), type(transform).__name__
    assert not torch.equal(pgd(steps=3, source_transforms=[SkipGradients()])(model, pictures, labels, [1, 2]), plain)


class Places(nn.Module):
    """A residual branch of products with weights, channels last as in ConvNeXt and Swin, or of convolutions."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.stem, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Conv2d(6, CLASSES, 1)
        self.wide, self.narrow = nn.Linear(6, 8), nn.Linear(8, 6)
        self.double().requires_grad_(False).eval()

    def layer(self, x, layer):
        if self.form == "convolutions":
            return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
        return layer(x)

    def forward(self, x):
        x = self.stem(x)
        if self.form == "swin":
            x = x.permute(0, 2, 3, 1)
        z = x.permute(0, 2, 3, 1) if self.form == "convnext" else x
        z = self.norm(z) if self.form != "convolutions" else self.norm(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        z = self.layer(self.layer(z, self.wide).tanh(), self.narrow)
        x = x + (z.permute(0, 3, 1, 2) if self.form == "convnext" else z)
        return self.head(x.permute(0, 3, 1, 2) if self.form == "swin" else x)


@pytest.mark.parametrize(
    "transform",
    [FeatureNoise(), DiversifiedFeatures(0.0, 1.0, 0.0), CleanFeatureMixup(1.0)],
    ids=lambda transform: type(transform).__name__,
)
def test_channels_are_channels_wherever_they_lie(transform, monkeypatch):
    def uniform(run, key, like, shape, low=0.0, high=1.0):
        return torch.linspace(low, 0.99 * high, math.prod(shape), dtype=like.dtype).view(1, *shape)

    # Random numbers depend on names and on the order of the axes.
    monkeypatch.setattr(Run, "uniform", uniform)
    monkeypatch.setattr(Run, "normal", lambda run, key, like: torch.ones_like(like))
    pictures, clean, found = images(), images(1), []
    for form in ("convolutions", "convnext", "swin"):
        if isinstance(transform, FeatureNoise):  # the second layer of the branch: a product's result lies behind it
            transform.at = 0.3 if form == "convolutions" else 0.6
        source = TransformedSource(Places(form), [transform])
        found.append(source(pictures, Draws([1, 2]), 0, clean))
    assert (found[0] - Places("swin")(pictures)).abs().max() > 1e-3
    assert torch.allclose(found[0], found[1])
    assert torch.allclose(found[0], found[2])

"""How the source runs with source transforms: all forms of networks, engines, batches; what is refused."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from lightning_attack.attacks import (
    FSPGD,
    AttackError,
    CleanFeatureMixup,
    DiversifiedFeatures,
    Draws,
    FeatureNoise,
    FixedAttention,
    InputDiversity,
    IterativeAttack,
    LinearBackward,
    Linf,
    PerturbationDecay,
    RandomFlip,
    SkipGradients,
    SmoothBackward,
    SoftplusResiduals,
    SourceTransform,
    UntilFooled,
    WorstCase,
    pgd,
    soft_transfer,
    with_gradient_of,
)
from lightning_attack.attacks.source_transforms.kept import kept
from lightning_attack.attacks.source_transforms.source import TransformedSource
from lightning_attack.common.windows import Windows
from lightning_attack.models import Ensemble, ExportedModel, SegmentationModel
from lightning_attack.models.export import export_model
from lightning_attack.predict.module import AttackModule
from tests.attacks.toys import Rich, curved, half_right, scene

ALL = [SmoothBackward(), SkipGradients(), FeatureNoise(), PerturbationDecay(0.5, sigma=0), CleanFeatureMixup(0.5)]
MORE = [LinearBackward(), SoftplusResiduals(), DiversifiedFeatures(start=0.0)]
"""The others of networks without attention; each is a transform of its own, but not beside all of those above."""


def attack(steps=2, transforms=ALL, **settings):
    return pgd(steps=steps, source_transforms=transforms, **settings)


def network():
    return Rich(curved(torch.float32)).eval().requires_grad_(False)


def pictures(batch=3, side=24):
    images, labels = scene(batch, side, side, dtype=torch.float32)
    return images, half_right(network(), images, labels)


def test_every_form_of_a_network_gives_the_same(tmp_path):
    """As it is, in a wrapper, in an ensemble, exported for any batch or for one image at a time (so in parts)."""
    images, labels = pictures()
    expected, more = (attack(transforms=parts)(network(), images, labels, [1, 2, 3]) for parts in (ALL, MORE))
    assert not torch.equal(expected, pgd(steps=2)(network(), images, labels, [1, 2, 3]))
    for batch in (torch.export.Dim.DYNAMIC, None):
        example = torch.rand(1 if batch is None else 2, 3, 24, 24)
        program = torch.export.export(network(), (example,), dynamic_shapes=({0: batch} if batch else None,))
        torch.export.save(program, path := tmp_path / f"{batch}.pt2")
        exported = ExportedModel(str(path))
        with pytest.warns(UserWarning, match="at a time") if batch is None else _nothing():
            found = attack()(exported, images, labels, [1, 2, 3])
        assert (found - expected).abs().max() < 1e-6
        assert (attack(transforms=MORE)(exported, images, labels, [1, 2, 3]) - more).abs().max() < 1e-6
        assert "forward" not in vars(exported.network)
    both = [SmoothBackward(), SkipGradients()]
    script = SegmentationModel(torch.jit.trace(network(), images))
    found = attack(transforms=both)(script, images, labels, [1, 2, 3])
    assert (found - attack(transforms=both)(network(), images, labels, [1, 2, 3])).abs().max() < 1e-6
    for model in (
        SegmentationModel(Several()),
        SegmentationModel(network()),
        Ensemble([network()], by="loss"),
        Ensemble([network()]),
    ):
        assert (attack()(model, images, labels, [1, 2, 3]) - expected).abs().max() < 1e-6


class Around(nn.Module):
    """Has the network by the name that `SegmentationModel` uses, and calls its parts."""

    def __init__(self, layers):
        super().__init__()
        self.network = layers

    def forward(self, x):
        for layer in self.network:
            x = layer(x)
        return x


class PartByPart(SegmentationModel):
    def outputs(self, images):
        return Around(self.network)(images), None


def test_a_network_inside_that_is_never_called_is_not_the_one_to_change(tmp_path):
    """As in one's own wrappers, and in the files that `export` writes."""
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 5, 3)).eval()
    linear, plain = (pgd(steps=2, source_transforms=parts) for parts in ([LinearBackward(start=0)], []))
    expected = linear(layers, images, labels % 5, [1])
    assert not torch.equal(expected, plain(layers, images, labels % 5, [1]))
    export_model(SegmentationModel(layers), path := str(tmp_path / "model.pt2"), size=(12, 12))
    for model in (Around(layers), SegmentationModel(Around(layers)), ExportedModel(path)):
        assert torch.equal(linear(model, images, labels % 5, [1]), expected)
    with pytest.raises(AttackError, match=r"networks inside the source \('sequential'\), and its forward pass"):
        linear(PartByPart(layers), images, labels % 5, [1])


class Several(nn.Module):
    """A network whose logits are one of several things that it returns."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        return {"out": self.inner(x), "about": [None, 3, x.mean()]}


def _nothing():
    return pytest.MonkeyPatch.context()


def batch_of(images, labels):
    return {"image": images, "mask": labels, "index": torch.arange(len(images)), "name": list("abc")[: len(images)]}


WAYS = [{"windows": Windows(16, attack="image")}, {"engine": "fused"}, {"engine": "compiled"}]


@pytest.mark.parametrize("way", WAYS, ids=["windows", "fused", "compiled"])
def test_engines_and_processes_do_not_change_the_result(way, monkeypatch):
    """The same for a batch and for its images one by one, as they come in other processes or after a resume."""
    compiled = []  # by a stand-in: the compiler takes a minute
    monkeypatch.setattr(torch, "compile", lambda graph, **_: compiled.append(graph) or graph)
    images, labels = pictures(2)
    batch = batch_of(images, labels)
    plain = {"engine": "eager", **way} if "windows" in way else {"engine": "eager"}
    expected = AttackModule(network(), attack(), {}, **plain).predict_step(batch, 0)
    clean = AttackModule(network(), pgd(steps=1), {}, **plain).predict_step(batch, 0).preds["rich"]["clean"]
    module = AttackModule(network(), attack(), {}, **way)
    for _ in range(3):  # engines step in from the second batch on
        together = module.predict_step(batch, 0)
        single = [module.predict_step({key: value[row : row + 1] for key, value in batch.items()}, 0) for row in (1, 0)]
        assert torch.equal(together.adversarial, expected.adversarial)
        assert torch.equal(torch.cat([one.adversarial for one in single[::-1]]), expected.adversarial)
        assert torch.equal(together.preds["rich"]["clean"], clean), "scores are of the network as it is"
    assert not compiled, "the attack's passes run operator by operator"
    plain = AttackModule(network(), pgd(steps=2), {}, **way)
    for _ in range(2):
        plain.predict_step(batch, 0)
    assert bool(compiled) == (way.get("engine") == "compiled")


def test_clean_features_are_those_of_the_same_view():
    """Without a change of the image, the features of a view are mixed with themselves."""
    images, labels = pictures(2)
    seen = []
    for transforms in ([], [PerturbationDecay(0.5, sigma=0.0)]):
        views = [InputDiversity(0.6, 1.0), RandomFlip()]
        one = pgd(steps=1, random_start=False, input_transforms=views, source_transforms=transforms)
        one(network(), images, labels, [1, 2], log=lambda step, figures: seen.append(figures["loss"]))
    assert torch.allclose(*seen, rtol=1e-5)


def test_a_network_whose_weights_change_is_traced_anew():
    model, (images, labels) = network(), pictures(2)
    first = attack()(model, images, labels, [1, 2])
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(-0.5)
    second = attack()(model, images, labels, [1, 2])
    assert not torch.equal(first, second)
    assert torch.equal(second, attack()(copy.deepcopy(model), images, labels, [1, 2]))


def test_a_part_that_changes_is_not_taken_for_the_old_one():
    """A module in place of another, and a class that a notebook defines anew."""
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 5, 1))

    def found(factor):
        class Mine(SourceTransform):
            def rewrite(self, graph):
                for node in graph.all(torch.ops.aten.convolution)[:1]:
                    graph.follow(node, lambda value: factor * value)

        return pgd(steps=2, source_transforms=[Mine()])(model, images, labels % 5, [1])

    first = found(1)
    assert not torch.equal(found(-1), first)
    model[1] = nn.Hardsigmoid()
    second = found(1)
    assert not torch.equal(second, first)
    model = copy.deepcopy(model)
    assert torch.equal(found(1), second)


class Outside(nn.Module):
    """Part of what it computes stands in attributes and hooks."""

    def __init__(self):
        super().__init__()
        self.scale, self.first, self.last = 1.0, nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 1)

    def forward(self, x):
        return self.last(self.scale * self.first(x).relu())


CHANGES = {
    "attribute": lambda model: setattr(model, "scale", -3.0),
    "hook": lambda model: model.first.register_forward_hook(lambda module, given, found: -3 * found),
    "forward": lambda model: setattr(model.first, "forward", lambda x: x.repeat(1, 2, 1, 1)[:, :5]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_that_changes_otherwise_is_traced_anew(change):
    images, model = torch.rand(1, 3, 4, 4), Outside().requires_grad_(False)

    def logits():
        return TransformedSource(model, [FeatureNoise(1e-9)])(images, Draws([1]), 0)

    assert torch.allclose(logits(), model(images))
    before = kept(model)
    assert kept(model) is before
    CHANGES[change](model)
    assert torch.allclose(logits(), model(images), atol=1e-5)
    assert kept(model) is not before


def test_transforms_that_differ_in_what_nobody_sees_are_two():
    """Functions, attributes of their own, and tensors that are written to."""

    class Changed(SourceTransform):
        def __init__(self, change, factor=1.0):
            self.change, self._factor = change, factor

        def rewrite(self, graph):
            for node in graph.all(torch.ops.aten.relu):
                graph.follow(node, lambda value: self._factor * self.change(value))

    images, model = torch.rand(1, 3, 4, 4), nn.ReLU()
    doubled, factor = torch.Tensor.square, torch.tensor(2.0)

    def found(transform):
        return TransformedSource(model, [transform])(images, Draws([1]), 0)

    assert torch.equal(found(Changed(lambda value: 2 * value)), 2 * images)
    assert torch.equal(found(Changed(lambda value: 5 * value)), 5 * images)
    assert torch.equal(found(Changed(doubled)), images**2)
    assert torch.equal(found(Changed(doubled, 3.0)), 3 * images**2)
    assert len(kept(model)._graphs) == 5  # the plain one as well
    found(Changed(doubled))
    assert len(kept(model)._graphs) == 5
    assert torch.equal(found(Changed(doubled, factor)), 2 * images**2)
    factor.add_(1)
    assert torch.equal(found(Changed(doubled, factor)), 3 * images**2)


def test_changes_of_one_node_are_made_in_order():
    class Changed(SourceTransform):
        def __init__(self, change):
            self.change = change

        def rewrite(self, graph):
            for node in graph.all(torch.ops.aten.relu):
                graph.follow(node, self.change)

    images, model = torch.rand(1, 3, 4, 4), nn.ReLU()
    double, more = Changed(lambda value: 2 * value), Changed(lambda value: value + 1)
    for transforms, expected in (([double, more], 2 * images + 1), ([more, double], 2 * (images + 1))):
        assert torch.equal(TransformedSource(model, transforms)(images, Draws([1]), 0), expected)
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    layers = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 5, 1))
    slopes = {"bpa": SmoothBackward(start=0), "linbp": LinearBackward(start=0)}
    results = {
        names: attack(1, [slopes[name] for name in names])(layers, images, labels % 5, [1])
        for names in (("bpa",), ("linbp",), ("bpa", "linbp"), ("linbp", "bpa"))
    }
    assert not torch.equal(results["bpa",], results["linbp",])
    assert torch.equal(results["bpa", "linbp"], results["linbp",])
    assert torch.equal(results["linbp", "bpa"], results["bpa",])


def test_members_that_run_on_part_after_part_have_their_own_numbers():
    images, labels = pictures()
    members = [SegmentationModel(network()) for _ in range(2)]
    noisy = attack(transforms=[FeatureNoise(1.0), CleanFeatureMixup(1.0)])
    expected = noisy(Ensemble(members), images, labels, [1, 2, 3])
    limited = Ensemble(members)
    limited.limit_batch(1, 1)
    assert (noisy(limited, images, labels, [1, 2, 3]) - expected).abs().max() < 1e-6


class Queries(nn.Module):
    """A decoder whose residual sums have the queries first, (Q, B, C), as torch's attention has them."""

    def __init__(self):
        super().__init__()
        self.layer, self.mix = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6)
        self.queries = nn.Parameter(torch.rand(5, 1, 6))
        self.sizes = {}

    def forward(self, x):
        if x.shape not in self.sizes:  # kept from the first run, which must not be that of the trace
            self.sizes[x.shape] = torch.ones(1)
        features = self.layer(x)
        queries = self.queries * features.mean((2, 3)) * self.sizes[x.shape]
        queries = queries + self.mix(queries.tanh())
        return nn.functional.interpolate(torch.einsum("qbc,bchw->bqhw", queries, features), x.shape[-2:])


def test_sums_of_queries_are_not_those_of_images():
    images, labels = scene(2, 12, 12, dtype=torch.float32)
    model = Queries().eval()
    changed = pgd(steps=2, source_transforms=[DiversifiedFeatures(start=0)])(model, images, labels % 5, [1, 2])
    plain = pgd(steps=2)(model, images, labels % 5, [1, 2])
    assert not torch.equal(changed, plain)


class Depends(nn.Module):
    def forward(self, x):
        return torch.cat([x, -x], 1) if x.max() > 0.5 else torch.cat([-x, x], 1)


class Filled(nn.Module):
    """Copies its layer's results into a tensor of its own, and may stop gradients of the image's mean."""

    def __init__(self, stops=False):
        super().__init__()
        self.layer, self.stops = nn.Conv2d(3, 5, 3, padding=1), stops

    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True)
        filled = torch.zeros(len(x), 5, *x.shape[2:], dtype=torch.float64)
        filled[:, :, 1:-1] = self.layer(x - (mean.detach() if self.stops else mean))[:, :, 1:-1]
        return filled.float()


class Random(nn.Module):
    def forward(self, x):
        return torch.cat([x, -x], 1) * torch.rand(())


class Summed(nn.Module):
    """One residual connection, and an activation behind its sum."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 5, 1)

    def forward(self, x):
        return self.head((x + self.layer(x)).relu())


PLAIN = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Tanh(), nn.Conv2d(5, 5, 1))
EARLY = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 1))


@pytest.mark.parametrize(
    ("model", "transform", "says"),
    [
        (PLAIN, SmoothBackward(), r"SmoothBackward changes ReLU, ReLU6, .* 'Sequential' has none; it computes "
         r"convolution \(2\), tanh \(1\)"),
        (Summed(), SmoothBackward(behind_sums=False),
         r"PReLU, but not behind the sums of residual connections \(behind_sums: true does\), and 'Summed' has none"),
        (Summed(), LinearBackward(behind_sums=False), "but not behind the sums .*, and 'Summed' has none"),
        (PLAIN, SkipGradients(), "residual connections .* has none"),
        (PLAIN, FixedAttention(), "attention with a softmax"),
        (EARLY, LinearBackward(start=0.5), r"from 0.50 of the depth on; the last .* at 0.00. Set start"),
        (EARLY, LinearBackward(nodes=["rellu"]), r"none of the name 'rellu' \(the nearest are relu\)"),
        (Depends(), FeatureNoise(), "'Depends' cannot be written as one for images of 12 x 12"),
        (Random(), FeatureNoise(), "does it draw random numbers"),
        (Filled(stops=True), FeatureNoise(), "has other gradients than the network"),
        (lambda x: x, FeatureNoise(), "a function has none: make it a module"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_refused(model, transform, says):
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    with pytest.raises(AttackError, match=says):
        pgd(steps=1, source_transforms=[transform])(model, images, labels % 5)
    assert not isinstance(model, nn.Module) or "forward" not in vars(model)


@pytest.mark.parametrize("model", [PLAIN, Depends(), lambda x: PLAIN(x)], ids=["no skips", "no graph", "a function"])
def test_where_no_transform_is_required_such_a_source_is_attacked_as_it_is(model):
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    expected = pgd(steps=2)(model, images, labels % 5, [1])
    with pytest.warns(UserWarning, match="the source is attacked as it is"):
        found = pgd(steps=2, source_transforms=[SkipGradients(required=False)])(model, images, labels % 5, [1])
    assert torch.equal(found, expected)
    with pytest.raises(AttackError):
        pgd(steps=2, source_transforms=[SkipGradients(required=False), FixedAttention()])(model, images, labels % 5)


def test_a_transform_that_is_not_required_is_left_out_alone():
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    plain = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.Tanh(), nn.Conv2d(5, 5, 1), nn.Upsample(scale_factor=4))
    mixup = CleanFeatureMixup(prob=1.0)
    expected = pgd(steps=2, source_transforms=[mixup])(plain, images, labels % 5, [1])
    optional = [SkipGradients(required=False), CleanFeatureMixup(prob=1.0, required=False)]
    shared = copy.deepcopy(plain)  # its graph is kept, and each attack says it all the same
    for others in ([optional[0], mixup], optional, optional):
        with pytest.warns(UserWarning, match="without one of the source transforms: .*residual connections"):
            found = pgd(steps=2, source_transforms=others)(shared, images, labels % 5, [1])
        assert torch.equal(found, expected)
    with pytest.raises(AttackError, match="residual connections"):
        pgd(steps=2, source_transforms=[SkipGradients(), optional[1]])(plain, images, labels % 5)


def test_a_run_is_refused_before_it_begins():
    for refused in (attack(), WorstCase([pgd(), attack()])):
        with pytest.raises(AttackError, match="has none"):
            AttackModule(PLAIN, refused, {})


def test_what_does_not_go_together():
    images, labels = pictures(1)
    both = [CleanFeatureMixup(0.5), PerturbationDecay(0.5)]
    with pytest.raises(AttackError, match="CleanFeatureMixup and PerturbationDecay both take features of the clean"):
        attack(transforms=both)(network(), images, labels, [1])
    both[1].sigma = 0
    attack(transforms=both)(network(), images, labels, [1])
    pools = nn.Sequential(nn.Conv2d(3, 3, 1), nn.SiLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
    with pytest.raises(AttackError, match="'relu_99'"):
        attack(transforms=[SmoothBackward(nodes=["relu_99"])])(pools, images, labels % 3, [1])
    with pytest.raises(ValueError, match=r"SmoothBackward runs the graph of the source, .* FSPGD have no names"):
        IterativeAttack(FSPGD(), Linf(), source_transforms=[SmoothBackward()])
    with pytest.raises(ValueError, match="no source transforms"):
        UntilFooled(attack())


RANGES = [
    (lambda: SmoothBackward(strength=1.5), "strength=1.5"), (lambda: SmoothBackward(temperature=0), "temperature=0"),
    (lambda: SmoothBackward(nodes="relu"), "nodes='relu'"), (lambda: SkipGradients(gamma=-1), "gamma=-1"),
    (lambda: SkipGradients(gamma_activated=2), "gamma_activated=2"),
    (lambda: FeatureNoise(sigma=float("nan")), "sigma=nan"), (lambda: PerturbationDecay(gamma=0), "gamma=0"),
    (lambda: CleanFeatureMixup(prob=2), "prob=2"), (lambda: FeatureNoise(at=2), "at=2"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "says"), RANGES)
def test_ranges(make, says):
    with pytest.raises(ValueError, match=says):
        make()


class Damped(SourceTransform):
    """A transform of one's own: one class."""

    def rewrite(self, graph):
        for node in graph.find(self, "convolutions", graph.all(torch.ops.aten.convolution), start=0.5):
            graph.follow(node, lambda value: with_gradient_of(value, 0.5 * value))


class Forgetful(SourceTransform):
    """A transform of one's own that finds what it wants to change, and leaves it at that."""

    def __init__(self, required=True):
        self.required = required

    def rewrite(self, graph):
        graph.find(self, "convolutions", graph.all(torch.ops.aten.convolution))


def test_a_transform_that_changes_nothing_is_refused():
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 1))
    for transforms in ([Forgetful()], [Damped(), Forgetful()]):
        with pytest.raises(AttackError, match="Forgetful has changed nothing in the graph of 'Sequential'"):
            pgd(steps=1, source_transforms=transforms)(model, images, labels % 5)
    with pytest.warns(UserWarning, match="without one of the source transforms: Forgetful has changed nothing"):
        pgd(steps=1, source_transforms=[Damped(), Forgetful(required=False)])(model, images, labels % 5)


def test_networks_that_copy_results_into_tensors_of_their_own_have_a_graph():
    images, labels = scene(1, 12, 12, dtype=torch.float32)
    model = Filled()
    found = pgd(steps=2, source_transforms=[FeatureNoise(1e-9)])(model, images, labels % 5, [1])
    assert (found - pgd(steps=2)(model, images, labels % 5, [1])).abs().max() < 1e-6


def test_one_class_is_a_transform():
    images, labels = pictures(1)
    mine = soft_transfer(steps=2, source_transforms=[Damped()])
    assert mine.settings()["source_transforms"] == [{"class": "Damped"}]
    # The signs of the gradient stay, and so does the result: all ways to the image are damped alike.
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    assert torch.equal(mine(model, images, labels, [1]), soft_transfer(steps=2)(model, images, labels, [1]))


@pytest.mark.parametrize("name", ["DeepLabV3Plus", "Segformer"])
def test_networks_of_a_library(name):
    torch.manual_seed(0)
    model = getattr(smp, name)("resnet18", encoder_weights=None, classes=5).eval()
    images, labels = scene(1, 64, 64, dtype=torch.float32)
    plain = pgd(steps=1)(model, images, labels, [1])
    for transform in ALL:
        changed = attack(1, [transform])(model, images, labels, [1])
        assert not torch.equal(changed, plain), type(transform).__name__

"""Objectives on features: the dense formulas, memory, regions by hand; and the recorder that gives the features."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import (
    FoolAllPixels,
    InputDiversity,
    IterativeAttack,
    Linf,
    LocalRegions,
    Staged,
    Switch,
    bfa,
    fia,
    fspgd,
    naa,
    rp_pgd,
)
from lightning_attack.attacks.features import Recorder
from lightning_attack.attacks.objectives import features as module
from lightning_attack.attacks.objectives.base import Moment, Prediction
from lightning_attack.attacks.objectives.features import FSPGD, RPPGD
from lightning_attack.common.windows import Windows
from lightning_attack.models import Ensemble, SegmentationModel
from lightning_attack.models.wrapper import with_windows
from tests.attacks.toys import CLASSES, FEW, PIXELS, curved, half_right, scene, share_of_differences
from tests.live_memory import LiveMemory


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_features(labels, targeted=False, logits=None, **features):
    if logits is None:
        logits = torch.zeros(len(labels), CLASSES, *labels.shape[1:])
    return Prediction(logits, labels, targeted, features)


def some_labels(images=2, height=6, width=9):
    labels = torch.randint(CLASSES, (images, height, width), generator=torch.Generator().manual_seed(3))
    labels[:, ::3, 1] = 255
    return labels


# ---- FSPGD


def dense_fspgd(before, now, share, cosine):
    """The formula as printed, of one image, with the whole matrix; features (D, h, w)."""
    f, g = (F.normalize(x.flatten(1), dim=0) for x in (before, now))
    alike = (f.T @ f > cosine) & ~torch.eye(f.shape[1], dtype=torch.bool)
    context = (alike * (g.T @ g)).sum() / alike.sum() / 2 if alike.any() else 0
    return -share * (f * g).sum(0).mean() - (1 - share) * context


@pytest.mark.parametrize("block_bytes", [1, 8 * 20 * 7, 2**30], ids=["row by row", "seven rows", "all rows"])
@pytest.mark.parametrize(("step", "cosine"), [(0, 0.5), (3, 0.5), (3, 0.2), (3, 0.9999)])
def test_fspgd_is_the_dense_formula(step, cosine, block_bytes, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    labels = some_labels()
    before = {"a": randn(2, 3, 4, 5), "b": randn(2, 6, 2, 3, seed=1)}
    now = {layer: (value + 0.5 * randn(*value.shape, seed=2)).requires_grad_() for layer, value in before.items()}
    moment = Moment(step, 4, clean=with_features(labels, **before))
    loss = FSPGD(["a", "b"], cosine)(with_features(labels, **now), moment)
    of_images = (loss.flatten(1).sum(1) / (labels != 255).flatten(1).sum(1)).sum()
    expected = sum(
        dense_fspgd(before[layer][image], now[layer][image], step / 4, cosine) / 2 for layer in now for image in (0, 1)
    )
    assert of_images.item() == pytest.approx(expected.item(), rel=1e-10)
    assert loss[labels == 255].abs().max() == 0
    for ours, theirs in zip(
        torch.autograd.grad(of_images, list(now.values())),
        torch.autograd.grad(expected, list(now.values())),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
        if cosine < 0.9:
            assert theirs.abs().max() > 1e-3


def test_fspgd_takes_tokens():
    labels, before, now = some_labels(), randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=1)
    maps = FSPGD(["a"])(with_features(labels, a=now), Moment(1, 4, clean=with_features(labels, a=before)))
    before, now = (x.flatten(2).mT for x in (before, now))
    tokens = FSPGD(["a"])(with_features(labels, a=now), Moment(1, 4, clean=with_features(labels, a=before)))
    assert torch.equal(maps, tokens)
    with pytest.raises(ValueError, match=r"layer 'a' returned \(2, 60\); expected maps .* or tokens"):
        FSPGD(["a"])(with_features(labels, a=now.flatten(1)), Moment(1, 4, clean=with_features(labels, a=before)))


def test_memory_at_stride_4():
    # 513 pixels at stride 4: 129 x 129 = 16641 places, whose matrix would have 1.1 GB.
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    before, now = randn(1, 8, 129, 129, dtype=torch.float32), randn(1, 8, 129, 129, seed=1, dtype=torch.float32)
    now.requires_grad_()
    with LiveMemory() as memory:
        moment = Moment(0, 4, clean=with_features(labels, a=before))
        loss = FSPGD(["a"])(with_features(labels, a=now), moment).sum()
        torch.autograd.grad(loss, now)
    assert module.BLOCK_BYTES < memory.peak < 100 * 2**20, "a block must be seen, and little more"


def test_fspgd_uses_no_labels():
    model = curved()
    images, labels = scene(2, 12, 12)
    attack = IterativeAttack(FSPGD(["1"]), Linf(PIXELS), steps=4, step_size=0.01, random_start=True)
    adversarial = attack(model, images, labels, seeds=[1, 2])
    others = torch.where(labels == 255, 255, (labels + 1) % CLASSES)
    assert torch.equal(attack(model, images, others, seeds=[1, 2]), adversarial)
    assert torch.equal(attack(model, images[1:], labels[1:], seeds=[2]), adversarial[1:])
    with pytest.raises(ValueError, match="cannot be targeted"):
        attack(model, images, labels, targeted=True)


# ---- RP-PGD


def one_row(classes, labels, targeted=False):
    logits = F.one_hot(torch.tensor([classes]), CLASSES).movedim(-1, 1)[:, :, None].double() * 2
    return Prediction(logits.requires_grad_(), torch.tensor([[labels]]), targeted)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_regions_over_three_steps(targeted):
    # Pixels: never fooled, fooled at the second step, at the first only, on the clean image already, ignored.
    unfooled, fooled = 0, 3
    labels = [3 if targeted else 0] * 4 + [255]
    looks = [
        [unfooled, unfooled, fooled, fooled, unfooled],
        [unfooled, fooled, unfooled, unfooled, unfooled],
        [unfooled, unfooled, unfooled, fooled, unfooled],
    ]
    moment = Moment(0, 3, clean=one_row([unfooled, unfooled, unfooled, fooled, unfooled], labels, targeted))
    expected = [[5, 5, 0, 1, 0], [4, 1, 1, 1, 0], [3, 2, 2, 1, 0]]  # sixths: T 6 - i, B i - 1, F 1
    for step, (look, sixths) in enumerate(zip(looks, expected, strict=True)):
        moment.step, moment.first = step, True
        prediction = one_row(look, labels, targeted)
        loss = RPPGD(prototypes=0)(prediction, moment)
        weights = torch.tensor(sixths, dtype=torch.float64) / 6
        assert torch.allclose(loss[0, 0], weights * prediction.cross_entropy[0, 0], rtol=1e-12, atol=0)
        # Further looks of the same step change nothing, whatever they show.
        moment.first = False
        again = RPPGD(prototypes=0).weights(one_row([fooled] * 5, labels, targeted), moment)
        assert torch.allclose(again[0, 0], weights, rtol=1e-12, atol=0)


def test_a_view_that_does_not_show_a_pixel_leaves_its_region():
    moment = Moment(0, 2, clean=one_row([0, 1], [0, 1]))
    assert RPPGD(prototypes=0).weights(one_row([0, 0], [0, 255]), moment).flatten().tolist() == [0.75, 0]
    moment.step = 1
    assert RPPGD(prototypes=0).weights(one_row([0, 1], [0, 1]), moment).flatten().tolist() == [0.5, 0.5]


@pytest.mark.parametrize("all_fooled", [False, True])
def test_the_past_of_a_later_stage_begins_with_it(all_fooled):
    labels = [0] * 3
    clean = one_row([0, 0, 0], labels)
    alone, staged = (Moment(0, 4, clean=clean) for _ in range(2))
    objective = Staged([FoolAllPixels(), RPPGD(prototypes=0)], [Switch(at=0.5, all_fooled=all_fooled)])
    looks = [[3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 0]]  # one pixel is fooled before the switch, one after it
    for step, look in enumerate(looks):
        prediction = one_row(look, labels)
        alone.step = staged.step = step
        loss = objective(prediction, staged)
        if step >= 2:
            assert torch.equal(loss, RPPGD(prototypes=0)(prediction, alone))
    assert staged.memory["rp_pgd lost"].tolist() == [[[False, True, False]]]


def test_each_image_has_its_own_past_in_a_stage():
    labels = torch.zeros(2, 1, 2, dtype=torch.int64)

    def seen(first, second):
        logits = F.one_hot(torch.tensor([[first], [second]]), CLASSES).movedim(-1, 1).double()
        return Prediction(logits.requires_grad_(), labels)

    objective = Staged([FoolAllPixels(), RPPGD(prototypes=0)], [Switch(at=None)])
    moment = Moment(0, 4, clean=seen([0, 0], [0, 0]))
    objective(seen([3, 3], [3, 0]), moment)  # the first image is fooled: it goes to RP-PGD
    assert moment.memory["rp_pgd lost"].tolist() == [[[True, True]], [[False, False]]]


def test_prototypes_are_those_of_a_loop():
    labels = some_labels()
    logits = F.one_hot(labels % 5, CLASSES).movedim(-1, 1).double() * randn(2, 1, 6, 9).sign()
    labels[1] = torch.where(labels[1] == 255, 255, 2)  # one class: no pairs
    maps = {"a": randn(2, 4, 3, 4).requires_grad_(), "b": randn(2, 2, 6, 9, seed=1).requires_grad_()}
    now = with_features(labels, logits=logits, **maps)
    moment = Moment(0, 4, clean=now.detached())
    value = RPPGD(0.4, ["a", "b"])(now, moment) - 0.6 * RPPGD(0)(now, moment)
    predicted, total = logits.argmax(1), 0
    for features in maps.values():
        h, w = features.shape[2:]
        means = []
        for c in range(CLASSES):
            places = [
                features[0, :, y * h // 6, x * w // 9]
                for y in range(6)
                for x in range(9)
                if predicted[0, y, x] == labels[0, y, x] == c
            ]
            if places:
                means.append(sum(places) / len(places))
        pairs = [F.cosine_similarity(p, q, dim=0) for i, p in enumerate(means) for q in means[:i]]
        assert len(pairs) >= 3
        total = total + sum(pairs) / len(pairs) / 2
    on_pixels = 0.4 * total * (labels[0] != 255)
    assert torch.allclose(value[0], on_pixels, rtol=0, atol=1e-12)
    assert value[1].abs().max() == 0
    ours = torch.autograd.grad(value.sum(), list(maps.values()))
    theirs = torch.autograd.grad(on_pixels.sum(), list(maps.values()))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=1e-10)
        assert other.abs().max() > 1e-2
        assert mine[1].abs().max() == 0


def test_targeted_prototypes_are_pulled_together():
    # Nothing has its wanted class 4 yet: predicted classes 0 and 1, prototypes (1, 0) and (3, 4)/5, cosine 3/5.
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 4.0]]]], dtype=torch.float64)
    logits = one_row([0, 1], [0, 1]).logits.detach()
    wanted = torch.full((1, 1, 2), 4)
    now = with_features(wanted, targeted=True, logits=logits, a=features)
    plain = RPPGD(0)(now, Moment(0, 2, clean=now))
    loss = RPPGD(0.25, ["a"])(now, Moment(0, 2, clean=now))
    assert (loss - 0.75 * plain).flatten().tolist() == pytest.approx([-0.15, -0.15])


def test_rp_pgd_in_the_loop():
    model = curved()
    images, labels = scene(3, 12, 15)
    labels = half_right(model, images, labels)

    def run(prototypes, images, labels, seeds, transforms=()):
        objective = RPPGD(prototypes, ["0"])
        attack = IterativeAttack(objective, Linf(PIXELS), 6, 0.01, random_start=True, input_transforms=transforms)
        return attack(model, images, labels, seeds=seeds)

    both = run(0.25, images, labels, [1, 2, 3])
    assert share_of_differences(both, run(0, images, labels, [1, 2, 3])) > 0.01
    assert torch.allclose(run(0.25, images[1:], labels[1:], [2, 3]), both[1:], rtol=0, atol=1e-12)
    run(0, images, labels, [1, 2, 3], [InputDiversity(0.7, 1.0)])
    with pytest.raises(ValueError, match="InputDiversity moves pixels, and RPPGD compares features"):
        run(0.25, images, labels, [1, 2, 3], [InputDiversity(0.7, 1.0)])


# ---- features of padded images


class Pooled(nn.Module):
    """Features with a place for each 4 x 4 pixels; the logits lie on them."""

    def __init__(self):
        super().__init__()
        self.pool, self.head = nn.AvgPool2d(4), nn.Conv2d(3, CLASSES, 1)

    def forward(self, x):
        return F.interpolate(self.head(self.pool(x)), scale_factor=4)


def pooled(stride=1, windows=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return with_windows(SegmentationModel(Pooled(), mean=(0.5, 0.5, 0.5), stride=stride), windows).double().eval()


PADDED = {
    "stride": lambda: pooled(stride=16),
    "window": lambda: pooled(windows=Windows(32)),
    "member": lambda: Ensemble([pooled(stride=16)]),
    "exported": lambda: SegmentationModel(exported(Pooled().double(), torch.zeros(1, 3, 32, 32).double()), stride=32),
}


@pytest.mark.parametrize("objective", [RPPGD, FSPGD], ids=["rp_pgd", "fspgd"])
@pytest.mark.parametrize("padded", ["stride", "window", "member"])
def test_places_are_those_of_the_padded_image(objective, padded):
    """On images that need no padding the padded network says the same, pixel for pixel and place for place."""
    images, labels = scene(2, 20, 24)
    plain, model = pooled(), PADDED[padded]()
    labels = half_right(plain, images, labels)
    settings = {"prototypes": 1.0} if objective is RPPGD else {}

    def run(network, layer):
        losses = []
        attack = IterativeAttack(objective(layers=[layer], **settings), Linf(PIXELS), 3, 0.01, random_start=True)
        found = attack(network, images, labels, [1, 2], log=lambda step, figures: losses.append(figures["loss"]))
        return found, torch.stack(losses)

    layer = "network.members.0.network.pool" if padded == "member" else "network.pool"
    expected, losses = run(plain, "network.pool")
    found, padded_losses = run(model, layer)
    assert losses.abs().max() > 0.1
    assert torch.allclose(padded_losses, losses, rtol=0, atol=1e-12)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_the_recorder_says_what_its_layers_cover():
    images = scene(1, 20, 24)[0]
    for padded, layer, extent in [
        ("stride", "network.pool", (32, 32)),
        ("window", "network.pool", (32, 32)),
        ("member", "network.members.0.network.pool", (32, 32)),
        ("exported", "network.avg_pool2d", (32, 32)),
    ]:
        model = PADDED[padded]()
        hooks = [len(part._forward_pre_hooks) for part in model.modules()]
        recorder = Recorder(model, [layer])
        recorder(images)
        assert recorder.extents == {layer: extent}
        assert [len(part._forward_pre_hooks) for part in model.modules()] == hooks
    recorder = Recorder(curved(), ["0"])
    recorder(images)
    assert recorder.extents == {}


# ---- both


@pytest.mark.parametrize("second", [FSPGD(["1"]), RPPGD(0.5, ["1"])], ids=["fspgd", "rp_pgd"])
def test_as_a_later_stage(second):
    model = curved()
    images, labels = scene(2, 12, 12)
    labels = half_right(model, images, labels)

    def run(objective):
        return IterativeAttack(objective, Linf(PIXELS), steps=6, step_size=0.01)(model, images, labels)

    staged = run(Staged([FoolAllPixels(), second], [Switch(at=0.5)]))
    assert share_of_differences(staged, run(FoolAllPixels())) > 0.01
    assert share_of_differences(staged, run(second)) > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("objective", [FSPGD(["a"]), RPPGD(0.5, ["a"])], ids=["fspgd", "rp_pgd"])
def test_extreme_features(objective, dtype):
    labels = some_labels()
    features = (1e4 * randn(2, 3, 4, 5, dtype=torch.float32)).to(dtype)
    features[0, :, 0] = 0  # as behind a ReLU
    features.requires_grad_()
    logits = 1e4 * F.one_hot(labels % 5, CLASSES).movedim(-1, 1).float()
    clean = with_features(labels, logits=logits, a=1e4 * randn(2, 3, 4, 5, dtype=torch.float32))
    loss = objective(with_features(labels, logits=logits, a=features), Moment(1, 4, clean=clean))
    gradient = torch.autograd.grad(loss.sum(), features)[0]
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FSPGD("auto"), r"layers='auto': must be a list of one or more names of layers, such as \['auto'\]"),
        (lambda: FSPGD([]), r"layers=\[\]: must be a list"),
        (lambda: FSPGD(cosine=1.5), "cosine=1.5: must be between -1 and 1"),
        (lambda: FSPGD(cosine=float("nan")), "cosine=nan: must be between -1 and 1"),
        (lambda: RPPGD(1.5), "prototypes=1.5: must be between 0 and 1"),
        (lambda: RPPGD(float("nan")), "prototypes=nan: must be between 0 and 1"),
        (lambda: RPPGD(layers=()), r"layers=\(\): must be a list"),
    ],
)
def test_construction_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("objective", [FSPGD(["a"]), RPPGD(0.5, ["a"])], ids=["fspgd", "rp_pgd"])
def test_clean_prediction_is_missing(objective):
    prediction = with_features(some_labels(), a=randn(2, 3, 4, 5))
    with pytest.raises(ValueError, match=rf"{type(objective).__name__} compares .* Moment\.clean is missing"):
        objective(prediction, Moment(0, 1))


def test_prototypes_need_maps():
    prediction = with_features(some_labels(), a=randn(2, 20, 3))
    with pytest.raises(ValueError, match=r"layer 'a' returned \(2, 20, 3\); expected maps \(B, D, h, w\)"):
        RPPGD(0.5, ["a"])(prediction, Moment(0, 1, clean=prediction))


# ---- the recorder


def exported(model, images):
    return torch.export.export(model, (images,)).module()


def test_layers_of_an_exported_program():
    model, images = curved(), scene(2, 8, 9)[0]
    program = nn.Sequential()
    program.add_module("network", exported(model, images))
    node_names = [node.name for node in program.network.graph.nodes if node.op == "call_function"]
    assert "conv2d" in node_names
    assert "tanh" in node_names
    by_module = Recorder(model, ["0", "1", "auto"])(images)
    by_node = Recorder(program, ["network.conv2d", "network.tanh", "auto"])(images)
    assert torch.equal(by_module[0], by_node[0])
    for mine, theirs in zip(by_module[1].values(), by_node[1].values(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(by_module[1]["0"], by_module[1]["1"])
    assert "forward" not in vars(program.network)
    attacks = [
        IterativeAttack(FSPGD([layer]), Linf(PIXELS), steps=3, step_size=0.01)(
            network, images, torch.zeros(2, 8, 9).long()
        )
        for network, layer in ((model, "1"), (program, "network.tanh"))
    ]
    assert torch.equal(*attacks)
    assert share_of_differences(attacks[0], images) > 0.5


def overwriting(inplace):
    """A network whose normalization is followed by a layer that may write over its output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, CLASSES, 1)
    return nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(inplace=inplace), last).double().eval()


@pytest.mark.parametrize("program", [False, True], ids=["module", "program"])
def test_features_are_those_before_a_layer_that_writes_over_them(program):
    images, labels = scene(2, 8, 9)
    models = [overwriting(inplace) for inplace in (False, True)]
    layer = "1"
    if program:
        models = [exported(model, images) for model in models]
        layer = next(node.name for node in models[0].graph.nodes if "norm" in node.name and node.op == "call_function")
        assert "relu_" in {node.name for node in models[1].graph.nodes}
    logits, features = zip(*(Recorder(model, [layer])(images) for model in models), strict=True)
    assert torch.equal(*logits)
    assert torch.equal(logits[0], models[0](images))
    assert features[0][layer].min() < -0.1
    assert torch.equal(features[0][layer], features[1][layer])
    for preset in (fspgd, fia, naa, bfa, rp_pgd):
        attack = preset(layers=[layer], steps=3, **FEW.get(preset.__name__, {}))
        found = [attack(model, images, labels, [1, 2]) for model in models]
        assert share_of_differences(found[0], images) > 0.5
        assert torch.equal(*found), preset.__name__


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("out of memory, say")


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_restored(fails):
    images = scene(1, 8, 9)[0]
    model = nn.Sequential()
    model.add_module("program", exported(curved(), images))
    model.add_module("plain", nn.Tanh())
    model.add_module("last", Failing() if fails else nn.Identity())
    before = [(dict(vars(part)), len(part._forward_hooks)) for part in model.modules()]
    graph = str(model.program.graph)
    recorder = Recorder(model, ["program.tanh", "plain"])
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            recorder(images)
    else:
        recorder(images)
    after = [(dict(vars(part)), len(part._forward_hooks)) for part in model.modules()]
    assert [(set(attributes), hooks) for attributes, hooks in after] == [(set(a), hooks) for a, hooks in before]
    assert str(model.program.graph) == graph


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("network.cnv1", r"the source has no layer 'network\.cnv1'; the nearest are .*network\.conv1"),
        ("network.tahn", r"no layer 'network\.tahn'; the nearest are .*network\.tanh"),
        ("", "the source has no layer ''"),
    ],
)
def test_unknown_layers_name_the_nearest(layer, message):
    model = nn.Sequential()
    model.add_module(
        "network", nn.ModuleDict({"conv1": nn.Conv2d(3, 2, 1), "conv2": nn.Conv2d(2, 2, 1), "tanh": nn.Tanh()})
    )
    with pytest.raises(ValueError, match=message):
        Recorder(model, [layer])


def test_layers_that_give_nothing():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.pair = nn.Conv2d(3, 2, 1), nn.LSTM(3, 2)

        def forward(self, x):
            return x + self.pair(x[0, :, 0].T)[0].sum()

    with pytest.raises(ValueError, match="layer 'unused' did not run"):
        Recorder(Odd(), ["unused"])(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="layer 'pair' returned a tuple, no tensor"):
        Recorder(Odd(), ["pair"])(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"only an nn\.Module has layers, not a function"):
        Recorder(lambda x: x, ["auto"])
    with pytest.raises(ValueError, match="no convolution to take features from; name its layers"):
        Recorder(nn.Tanh(), ["auto"])


def test_auto_is_for_one_network():
    ensemble = Ensemble([curved(), curved(seed=1)])
    with pytest.raises(ValueError, match=r"the source is an ensemble by logits; set by: loss, or name layers"):
        fspgd().check_model(ensemble)
    fspgd().check_model(Ensemble([curved(), curved(seed=1)], by="loss"))
    fspgd(layers=["network.members.0.network.0"]).check_model(ensemble)


@pytest.mark.parametrize("objective", [FSPGD(), RPPGD()])
def test_features_are_not_compared_with_those_of_elsewhere(objective):
    with pytest.raises(ValueError, match="LocalRegions moves pixels"):
        IterativeAttack(objective, Linf(), input_transforms=[LocalRegions()])

"""Attacks on the members of an ensemble, and soups, against second versions of them."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks import (
    AdaEA,
    CommonWeakness,
    CrossEntropy,
    Draws,
    InputDiversity,
    IterativeAttack,
    Linf,
    Momentum,
    SkipGradients,
    Soup,
    SourceRotation,
    Staircase,
    VarianceTuning,
    bim,
)
from lightning_attack.attacks.objectives.transegpgd import TransferablePixels
from lightning_attack.models import Ensemble
from lightning_attack.predict.cost import count_passes
from tests.attacks.toys import BALL, PIXELS, STEP, Rich, Together, curved, half_right, scene, share_of_differences, two

STEPS = 3


def setting(by="logits"):
    model = two()
    model.by = by
    images, labels = scene(2, 12, 10)
    return model, images, half_right(model, images, labels)


def loss(logits, labels):
    return F.cross_entropy(logits, labels, ignore_index=255, reduction="none").flatten(1).sum(1)


def gradient(model, x, labels):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(loss(model(x), labels).sum(), x)[0]


def clip(x, images):
    return torch.clip(images + torch.clip(x - images, -PIXELS, PIXELS), 0, 1)


def climb(images, direction):
    """Momentum and steps along what `direction(x, t)` returns."""
    x, momentum = images, 0
    for t in range(STEPS):
        g = direction(x, t)
        momentum = momentum + g / g.abs().mean((1, 2, 3), keepdim=True)
        x = clip(x + STEP * momentum.sign(), images)
    return x


def attack(kind, **settings):
    return kind(CrossEntropy(), BALL, STEPS, STEP, gradient_transforms=[Momentum()], **settings)


def test_rotation():
    model, images, labels = setting()
    for order in ("cyclic", "random"):
        rotation = attack(SourceRotation, order=order, order_seed=3)
        turns = [rotation.member(t, [0.5, 0.5]) for t in range(STEPS)]
        expected = climb(images, lambda x, t, turns=turns: gradient(model.members[turns[t]], x, labels))
        assert torch.equal(rotation(model, images, labels), expected)
    assert [attack(SourceRotation).member(t, [0.9, 0.1]) for t in range(4)] == [0, 1, 0, 1]
    drawn = [SourceRotation(CrossEntropy(), BALL, order="random").member(t, [0.8, 0.2]) for t in range(200)]
    assert 140 < drawn.count(0) < 180


@pytest.mark.parametrize("by", ["logits", "softmax", "loss"])
@pytest.mark.parametrize("targeted", [False, True])
def test_adaptive_ensemble(by, targeted):
    """Image by image, with loops over the members, as the paper writes it."""
    model, images, labels = setting(by)
    sign = -1 if targeted else 1

    def direction(x, t):
        result = []
        for image, clean, label in zip(x[:, None], images[:, None], labels[:, None], strict=True):
            found = [sign * gradient(member, image, label) for member in model.members]
            steps = [clip(image + STEP * g.sign(), clean) for g in found]
            told = [[float(loss(member(step), label).detach()) for step in steps] for member in model.members]
            scores = []
            for k in range(2):
                i = 1 - k
                ratio = told[i][k] / told[i][i]
                scores.append(5.0 * (1 / ratio if targeted else ratio))
            w = torch.tensor(scores).double().softmax(0)
            point = image.detach().requires_grad_()
            logits = [member(point) for member in model.members]
            if by == "loss":
                whole = sum(w[k] * loss(logits[k], label) for k in range(2))
            elif by == "softmax":
                mixed = sum(w[k] * logits[k].softmax(1) for k in range(2))
                whole = loss(mixed.log(), label)
            else:
                whole = loss(sum(w[k] * logits[k] for k in range(2)), label)
            g = sign * torch.autograd.grad(whole.sum(), point)[0]
            agree = (found[0] * found[1]).sum(1) / found[0].norm(dim=1) / found[1].norm(dim=1)
            result.append(torch.where((agree < -0.3)[:, None], 0, g))
        return torch.cat(result)

    ours = attack(AdaEA, beta=5.0)(model, images, labels, targeted=targeted)
    assert share_of_differences(ours, climb(images, direction)) < 0.01, "sums in another order turn few signs"
    plain = attack(IterativeAttack)(model, images, labels, targeted=targeted)
    assert share_of_differences(ours, plain) > 0.05


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_common_weakness(decay):
    model, images, labels = setting()
    inner_momentum = 0
    inner_size = 0.02 * (3 * 12 * 10) ** 0.5

    def direction(x, t):
        nonlocal inner_momentum
        inner = clip(x - 0.005 * gradient(model, x, labels).sign(), images)
        for member in model.members:
            g = gradient(member, inner, labels)
            inner_momentum = decay * inner_momentum + g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            inner = clip(inner + inner_size * inner_momentum, images)
        return inner - x

    cwa = attack(CommonWeakness, inner_size=0.02, reverse_size=0.005, decay=decay)
    ours = cwa(model, images, labels)
    assert share_of_differences(ours, climb(images, direction)) < 0.01
    assert share_of_differences(ours, attack(IterativeAttack)(model, images, labels)) > 0.05


def test_costs():
    """Backward passes of a step for two members; forward passes of `AdaEA` count each member at each one's step."""
    _, images, labels = setting()
    for by, kind, costs in (
        ("logits", SourceRotation, (1, 1)),
        ("logits", AdaEA, (2 + 4 + 2, 2 + 2)),
        ("loss", AdaEA, (2 + 4, 2)),
        ("logits", CommonWeakness, (4, 4)),
        ("loss", CommonWeakness, (4, 4)),
    ):
        source = Ensemble([curved(), curved(seed=1)], by=by)
        with count_passes(source) as passes:
            attack(kind)(source, images, labels)
        found = passes["forward"] / len(images) / STEPS, passes["backward"] / len(images) / STEPS
        assert found == costs, (by, kind)


@pytest.fixture(scope="module")
def rich_members():
    """Graphs are kept with their networks, and take a moment to make."""
    return [Rich(curved()), Rich(curved(seed=1))]


@pytest.mark.parametrize("kind", [SourceRotation, AdaEA, CommonWeakness])
def test_with_all_other_parts(kind, rich_members):
    """Views, source transforms, lengths of steps, a schedule, a corner; of an ensemble of one, too."""
    _, images, labels = setting()
    model, parts = Ensemble(rich_members), {"source_transforms": [SkipGradients()], "step_schedule": "cosine"}
    parts |= {"input_transforms": [InputDiversity()], "gradient_transforms": [Staircase()], "finish": "sign"}
    whole = kind(CrossEntropy(), Linf(PIXELS), 2, STEP, **parts)
    seen = []
    both = whole(model, images, labels, [1, 2], log=lambda step, figures: seen.append(figures))
    assert torch.equal(both[1:], whole(model, images[1:], labels[1:], [2]))
    assert len(seen) == 2
    assert all({"loss", "p_t"} <= {*figures} for figures in seen)
    assert ((both - images).abs().amax((1, 2, 3)) > 0.9 * PIXELS).all()
    assert whole(Ensemble(rich_members[:1]), images, labels, [1, 2]).isfinite().all()


def test_a_single_member_is_no_ensemble():
    member, (_, images, labels) = curved(), setting()
    alone = attack(IterativeAttack)(member, images, labels)
    for kind in (SourceRotation, AdaEA):
        assert torch.equal(attack(kind)(Together(member), images, labels), alone)


def test_soup():
    model, images, labels = curved(), *setting()[1:]
    views = [InputDiversity(0.5, 1.0)]
    soup = Soup(CrossEntropy(), BALL, STEPS, STEP, 3, input_transforms=views, gradient_transforms=[Momentum()])
    seen = []
    found = soup(model, images, labels, [1, 2], watch=lambda step, x: seen.append(x))
    # Side by side: the starts are drawn first, then the views of step by step, run by run.
    draws, draw = Draws([1, 2]), InputDiversity(0.5, 1.0)
    points = [clip(images + draws.uniform("start", (3, 12, 10), -PIXELS, PIXELS).double(), images) for _ in range(3)]
    momenta = [0] * 3
    for step in range(STEPS):
        for run, point in enumerate(points):
            x = point.detach().requires_grad_()
            (view,) = draw(x, draws)
            g = torch.autograd.grad(loss(view.undo(model(view.images)), labels).sum(), x)[0]
            momenta[run] = momenta[run] + g / g.abs().mean((1, 2, 3), keepdim=True)
            points[run] = clip(point + STEP * momenta[run].sign(), images)
        assert (seen[step] - sum(points) / 3).abs().max() < 1e-9
    assert torch.equal(found, seen[-1])
    assert (found - images).abs().max() <= PIXELS
    corner = Soup(CrossEntropy(), BALL, 1, STEP, 2, finish="sign")(model, images, labels, [1, 2])
    inner = (images > PIXELS) & (images < 1 - PIXELS)
    border = torch.isclose((corner - images)[inner].abs(), torch.tensor(PIXELS).double())
    assert border.double().mean() > 0.95, "but where two runs cancelled each other"


def test_a_soup_of_runs_without_chance_is_the_attack():
    model, images, labels = curved(), *setting()[1:]
    soup = Soup(CrossEntropy(), BALL, STEPS, STEP, 3, random_start=False)
    alone = bim(eps=PIXELS, steps=STEPS, step_size=STEP)
    assert torch.allclose(soup(model, images, labels), alone(model, images, labels))


@pytest.mark.parametrize("kind", [SourceRotation, AdaEA, CommonWeakness])
def test_needs_an_ensemble(kind):
    with pytest.raises(ValueError, match=r"needs an ensemble as source .*; Sequential has none"):
        attack(kind)(curved(), *setting()[1:])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: attack(SourceRotation, order="other"), "order='other'"),
        (lambda: attack(AdaEA, beta=-1.0), "beta=-1.0"),
        (lambda: attack(AdaEA, threshold=1.1), "threshold=1.1"),
        (lambda: attack(CommonWeakness, inner_size=0.0), "inner_size=0.0"),
        (lambda: attack(CommonWeakness, decay=-1.0), "decay=-1.0"),
        (lambda: attack(CommonWeakness, reverse_size=0), "reverse_size=0"),
        (
            lambda: CommonWeakness(CrossEntropy(), BALL, gradient_transforms=[VarianceTuning(1)]),
            "VarianceTuning takes several gradients in a step",
        ),
        (lambda: attack(Soup, runs=0), "runs=0"),
    ],
)
def test_out_of_range(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_adaea_takes_objectives_that_look_at_clean_images():
    for by in ("logits", "loss"):
        model, images, labels = setting(by)
        ours = AdaEA(TransferablePixels(), Linf(PIXELS), STEPS, STEP, gradient_transforms=[Momentum()])
        assert not torch.equal(ours(model, images, labels, [1, 2]), images)


def test_no_pixel_disagrees_more_than_opposite_gradients():
    gradient = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert AdaEA.agreement([gradient, -3 * gradient]).min() >= -1, "threshold -1 filters nothing"


@pytest.mark.parametrize("by", ["logits", "loss"])
def test_weights_of_large_half_images_are_numbers(by):
    """The sum of the losses of 90,000 pixels is more than a half float can hold."""
    images, labels = scene(1, 300, 300, dtype=torch.float32)
    torch.manual_seed(0)
    members = [torch.nn.Conv2d(3, 5, 1).requires_grad_(False) for _ in range(2)]
    attack, found = AdaEA(CrossEntropy(), Linf(PIXELS), 1, STEP), []
    for dtype in (torch.float32, torch.float16):
        ensemble = Together(*(member.to(dtype) for member in members), by=by)
        found.append(attack(ensemble, images.to(dtype), labels % 5, [1]).float())
    assert found[1].isfinite().all()
    assert ((found[0] - found[1]).abs() < 1e-3).float().mean() > 0.95

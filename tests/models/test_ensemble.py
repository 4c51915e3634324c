"""`Ensemble`: three averages by hand, one network twice is the network, members keep what is their own."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import (
    CrossEntropy,
    FoolAllPixels,
    GradientTransform,
    IterativeAttack,
    Linf,
    SegPGD,
    Staged,
    Switch,
    TransferablePixels,
    bim,
    fgsm,
    fspgd,
    sea,
    transegpgd,
)
from lightning_attack.models import Ensemble, ModelError, SegmentationModel
from lightning_attack.predict.module import AttackModule
from tests.attacks.toys import PIXELS, curved, half_right, scene, share_of_differences

WEIGHTS = (0.75, 0.25)
COMMON = {"eps": PIXELS, "step_size": 0.01, "steps": 4}


def two(by="logits", weights=(3, 1)):
    return Ensemble([curved(seed=0), curved(seed=1)], weights, by)


@pytest.mark.parametrize("by", ["logits", "softmax", "loss"])
def test_what_it_predicts_is_the_weighted_mean(by):
    ensemble, (images, _) = two(by), scene()
    first, second = (member(images) for member in (curved(seed=0), curved(seed=1)))
    mean = {
        "logits": lambda z: z,
        "softmax": lambda z: z.softmax(1),
        "loss": lambda z: z,  # the average of the losses is the attack's business
    }[by]
    expected = 0.75 * mean(first) + 0.25 * mean(second)
    found = ensemble(images).exp() if by == "softmax" else ensemble(images)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(found, 0.5 * mean(first) + 0.5 * mean(second), atol=0.01)


def test_softmax_of_members_that_are_certain_has_a_gradient():
    class Certain(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x):
            return self.scale * torch.cat([x[:, :1], -x[:, :1]], 1)

    x = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    logits = Ensemble([Certain(4000.0), Certain(-4000.0)], by="softmax")(x)  # exp(-4000) is 0 in float64
    assert logits.flatten().tolist() == pytest.approx([-math.log(2)] * 2, abs=1e-12)
    assert torch.autograd.grad(logits[:, 0].sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(("given", "scaled"), [(None, [0.5, 0.5]), ([3, 1], [0.75, 0.25]), ([0.1, 0.3], [0.25, 0.75])])
def test_weights_are_scaled_to_sum_1(given, scaled):
    assert two(weights=given).weights == pytest.approx(scaled, rel=1e-15)


ATTACKS = [bim(**COMMON), transegpgd(**COMMON), sea(eps=PIXELS, steps=6)]
CASES = [(attack, by) for attack in ATTACKS for by in ("logits", "loss", "softmax")]
# Members of the other ensembles have other names for their layers.
CASES.append((fspgd(**COMMON, layers=["network.0"]), "loss"))


@pytest.mark.parametrize(("attack", "by"), CASES, ids=[f"{attack.name}-{by}" for attack, by in CASES])
def test_one_network_twice_is_the_network(attack, by):
    network, (images, labels) = SegmentationModel(curved()), scene(2, 24, 20)
    labels = half_right(network, images, labels)
    ensemble = Ensemble([network, network], by=by)
    figures = [], []
    results = [
        attack(model, images, labels, [3, 4], log=lambda _, values, kept=kept: kept.append(values))
        for model, kept in zip((network, ensemble), figures, strict=True)
    ]
    if by == "softmax":
        # Rounding may turn the sign of a gradient that is next to nothing.
        assert torch.allclose(ensemble(images).softmax(1), network(images).softmax(1), rtol=0, atol=1e-12)
        assert share_of_differences(*((1e12 * result).round() for result in results)) < 0.01
        return
    assert torch.equal(*results)
    assert (results[0] - images).abs().amax() > PIXELS - 1e-9
    two_networks = Ensemble([network, SegmentationModel(curved(seed=1))], by=by)
    assert share_of_differences(attack(two_networks, images, labels, [3, 4]), results[0]) > 0.01
    for alone, together in zip(*figures, strict=True):
        assert alone.keys() == together.keys()
        assert all(torch.equal(alone[name], together[name]) for name in alone)


class Record(GradientTransform):
    """Keeps the points that are asked about and the gradients there."""

    def __init__(self):
        self.seen = []

    def __call__(self, gradient, budget):
        def ask(x):
            self.seen.append((x.detach(), gradient(x)))
            return self.seen[-1][1]

        return ask


def cross_entropy(z, y):
    return F.cross_entropy(z, y, reduction="none")


def pick(mask, inside, outside):
    return torch.tensor([outside, inside], dtype=torch.float64)[mask.long()]


def plain(t, steps, z, y, clean, memory):
    return torch.ones_like(y, dtype=z.dtype)


def segpgd(t, steps, z, y, clean, memory):
    share = t / (2 * steps)
    return pick(z.argmax(1) == y, 1 - share, share)


def two_stages(t, steps, z, y, clean, memory):
    """gamma 0.2, beta 0.3; an own clean prediction and an own switch: all pixels fooled, or half of the steps."""
    right = z.argmax(1) == y
    memory["two"] = memory.get("two", False) or 2 * t >= steps or not right.any()
    if not memory["two"]:
        return pick(right, 0.8, 0.2)
    now, before = z.log_softmax(1), clean.log_softmax(1)
    divergence = (now.exp() * (now - before)).sum(1)  # exactly 0 at the clean image: all its pixels weigh alike
    high = divergence > divergence.mean()
    return pick(high if high.any() else ~high, 0.7, 0.3)


@pytest.mark.parametrize(
    ("objective", "weights_of"),
    [
        (CrossEntropy(), plain),
        (SegPGD(), segpgd),
        (Staged([FoolAllPixels(0.2), TransferablePixels(0.3)], [Switch()]), two_stages),
    ],
    ids=["cross_entropy", "segpgd", "transegpgd"],
)
def test_by_loss_members_weigh_their_own_pixels(objective, weights_of):
    steps, members, (images, labels) = 4, [curved(seed=0), curved(seed=1)], scene(2, 14, 18)
    labels = half_right(members[1], images, labels)
    # Of the second image the first member gets every pixel wrong: it goes to stage two at once, the second does not.
    labels[1] = torch.where(members[0](images)[1].argmax(0) == labels[1], 255, labels[1])
    record, figures = Record(), []
    attack = IterativeAttack(objective, Linf(PIXELS), steps, 0.01, gradient_transforms=[record])
    attack(two("loss"), images, labels, log=lambda _, values: figures.append(values))
    assert len(record.seen) == steps
    memories = {(k, i): {} for k in range(2) for i in range(2)}
    apart = 0
    for t, (x, found) in enumerate(record.seen):
        expected, mean_loss = torch.zeros_like(x), torch.zeros(2, dtype=x.dtype)
        for i, label in enumerate(labels):
            known, pixel_weights = label != 255, []
            for k, member in enumerate(members):
                point = x[i : i + 1].clone().requires_grad_()
                clean = member(images[i : i + 1])[0, :, known].T.detach()
                z, y = member(point)[0, :, known].T, label[known]
                pixel_weights.append(weights_of(t, steps, z.detach(), y, clean, memories[k, i]))
                loss = (pixel_weights[-1] * cross_entropy(z, y)).sum()
                expected[i] += WEIGHTS[k] * torch.autograd.grad(loss, point)[0][0]
                mean_loss[i] += WEIGHTS[k] * loss.detach() / known.sum()
            apart += int((pixel_weights[0] != pixel_weights[1]).sum())
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
        assert torch.allclose(figures[t]["loss"], mean_loss, rtol=1e-12)
        if "stage_two" in figures[t]:  # of the members, by their weights
            assert figures[t]["stage_two"].tolist() == ([0, 0.75] if t < 2 else [1, 1])
    assert weights_of is plain or apart > 50  # the members do not agree on the weights


def test_by_loss_is_none_of_the_other_averages():
    images, labels = scene(2, 16, 16)
    results = [bim(**COMMON)(two(by), images, labels) for by in ("logits", "softmax", "loss")]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert share_of_differences(results[first], results[second]) > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": []}, "an ensemble needs members"),
        ({"weights": [1]}, r"weights=\[1\] for 2 members; give one number above 0 for each"),
        ({"weights": [1, 1, 1]}, "for 2 members"),
        ({"weights": []}, "for 2 members"),
        ({"weights": [1, 0]}, r"weights=\[1, 0\]"),
        ({"weights": [2, -1]}, r"weights=\[2, -1\]"),
        ({"weights": [1, math.nan]}, "number above 0"),
        ({"weights": [1, math.inf]}, "number above 0"),
        ({"by": "mean"}, "by='mean': must be one of logits, softmax, loss"),
    ],
    ids=str,
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ModelError, match=message):
        Ensemble(**{"members": [nn.Identity(), nn.Identity()], **arguments})


@pytest.mark.parametrize("by", ["logits", "softmax", "loss"])
def test_members_of_different_classes(by):
    ensemble = Ensemble([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)], by=by)
    with pytest.raises(ModelError, match=r"members of an ensemble have \[2, 4\] classes; all must have the same"):
        AttackModule(ensemble, fgsm())


def test_members_are_networks_on_01_images_of_their_own_normalisation():
    one = SegmentationModel(nn.Identity(), mean=(0.5,) * 3, std=(0.25,) * 3, stride=4)
    images = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = Ensemble([one, nn.Identity()])(images)
    assert torch.allclose(found, ((images - 0.5) / 0.25 + images) / 2, atol=1e-6)
    assert Ensemble([one], name="mine").name == "mine"

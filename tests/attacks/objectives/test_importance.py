"""FIA, NAA and BFA against their formulas, image by image and sample by sample, on a small network in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import BFA, FIA, NAA, Draws, IterativeAttack, Linf, Momentum, Staged, Switch
from lightning_attack.attacks.objectives.base import Moment, Prediction
from lightning_attack.predict.cost import count_passes
from tests.attacks.toys import CLASSES, PIXELS, curved, half_right, scene, share_of_differences

SAMPLES = 3


class Network(nn.Module):
    """Features of another size than the image, behind which a pixel's logits depend on several of them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Conv2d(4, CLASSES, 3, padding=1)
        self.double().requires_grad_(False)

    def top(self, features, size):
        return F.interpolate(self.head(torch.tanh(3 * features)), size, mode="bilinear")

    def forward(self, x):
        return self.top(self.features(x), x.shape[-2:])


def score(logits, labels):
    """Mean over the labelled pixels of the label's own value; of one image, (C, H, W) and (H, W)."""
    values = [logits[label, y, x] for (y, x), label in flat(labels) if label != 255]
    return sum(values) / len(values)


def flat(labels):
    height, width = labels.shape
    return [((y, x), int(labels[y, x])) for y in range(height) for x in range(width)]


def slope(network, image, labels, of):
    features = network.features(image[None]).requires_grad_()
    logits = network.top(features, image.shape[-2:])[0]
    return torch.autograd.grad(score(of(logits), labels), features)[0][0]


def fia(network, image, labels, seed, targeted):
    draws, total = Draws([seed]), 0
    for _ in range(SAMPLES):
        mask = draws.uniform("importance mask", image.shape)[0] >= 0.4
        total = total + slope(network, torch.where(mask, image, 0.0), labels, lambda logits: logits)
    weights = total / total.pow(2).sum().sqrt()
    return lambda features: -(weights * features).sum()


def naa(network, image, labels, seed, targeted):
    draws, total = Draws([seed]), 0
    for m in (3, 2, 1):
        noise = draws.normal("attribution noise", image.shape)[0].double()
        total = total + slope(network, m / 3 * (image + 0.2 * noise), labels, lambda logits: logits.softmax(0))
    weights = total / total.pow(2).sum().sqrt()
    base = network.features(torch.zeros_like(image)[None])[0]

    def loss(features):
        attributions = ((features - base) * weights).flatten()
        return -sum(a if a >= 0 else 0.5 * a for a in attributions)

    return loss


def bfa(network, image, labels, seed, targeted):
    total, point = 0, image
    for _ in range(SAMPLES):
        point = point.detach().requires_grad_()
        loss = F.cross_entropy(network(point[None]), labels[None], ignore_index=255)
        uphill = torch.autograd.grad(-loss if targeted else loss, point)[0]
        # 0.1 to each value if all moved alike.
        point = image + 0.1 * image.numel() ** 0.5 * uphill / uphill.pow(2).sum().sqrt()
        total = total + slope(network, point, labels, lambda logits: logits)
    weights = total / total.pow(2).sum().sqrt()
    return lambda features: -(weights * features).sum()


CASES = {
    "fia": (FIA(["features"], SAMPLES, drop=0.4), fia),
    "naa": (NAA(["features"], SAMPLES, gamma=0.5, noise=0.2), naa),
    "bfa": (BFA(["features"], SAMPLES, reach=0.1), bfa),
}


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("name", CASES)
def test_attack_is_that_of_the_formula(name, targeted):
    objective, reference = CASES[name]
    network, (images, labels) = Network(), scene(2, 6, 8)
    attack = IterativeAttack(objective, Linf(PIXELS), 3, 0.02, gradient_transforms=[Momentum()])
    logged = []
    found = attack(network, images, labels, [5, 6], targeted=targeted, log=lambda step, all: logged.append(all["loss"]))
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        loss_of = reference(network, image, label, 5 + row, targeted)
        x, momentum = image, 0
        for step in range(3):
            x = x.detach().requires_grad_()
            loss = loss_of(network.features(x[None])[0])
            assert logged[step][row].item() == pytest.approx(loss.item(), rel=1e-9)
            gradient = torch.autograd.grad(loss, x)[0] * (-1 if targeted else 1)
            momentum = momentum + gradient / gradient.abs().mean()
            x = (image + (x + 0.02 * momentum.sign() - image).clamp(-PIXELS, PIXELS)).clamp(0, 1)
        assert torch.allclose(found[row], x.detach(), rtol=0, atol=1e-12)
    assert logged[-1].mean() > logged[0].mean() if not targeted else logged[-1].mean() < logged[0].mean()


@pytest.mark.parametrize(("name", "backward"), [("fia", 3 + 3), ("naa", 3 + 3), ("bfa", 3 + 2 * 3)])
def test_passes_before_the_first_step_are_counted(name, backward):
    network, (images, labels) = Network(), scene(2, 6, 8)
    with count_passes(network) as passes:
        IterativeAttack(CASES[name][0], Linf(PIXELS), 3, 0.02)(network, images, labels, [5, 6])
    # NAA: the black image; BFA: the image itself, whose features are not weighed.
    assert passes == {"forward": 2 * (6 if name == "fia" else 7), "backward": 2 * backward}


def test_stages_keep_weights_of_their_own():
    network, (images, labels) = Network(), scene(2, 6, 8)
    labels = half_right(network, images, labels)
    first, second = (FIA(["features"], 2, drop) for drop in (0.1, 0.6))

    def run(objective):
        return IterativeAttack(objective, Linf(PIXELS), 2, 0.02)(network, images, labels, [5, 6])

    alike = run(Staged([second, FIA(["features"], 2, 0.6)], [Switch(at=0.5, all_fooled=False)]))
    assert share_of_differences(alike, run(Staged([second, first], [Switch(at=0.5, all_fooled=False)]))) > 0.01


def test_nothing_is_dropped():
    """One gradient is enough then, and the seed does not matter."""
    network, (images, labels) = Network(), scene(2, 6, 8)
    attack = IterativeAttack(FIA(["features"], 30, drop=0), Linf(PIXELS), 2, 0.02)
    with count_passes(network) as passes:
        found = attack(network, images, labels, [5, 6])
    assert passes["backward"] == 2 * (2 + 1)
    assert torch.equal(found, attack(network, images, labels, [7, 8]))


class Misled(nn.Module):
    """Layers that cannot be weighed: one that the logits do not depend on, and one with parts of images."""

    def __init__(self):
        super().__init__()
        self.model, self.aside, self.parts = curved(), nn.Conv2d(3, 2, 1).double(), nn.Identity()

    def forward(self, x):
        self.aside(x)
        halves = self.parts(torch.cat(x.chunk(2, -1)))
        return self.model(torch.cat(halves.chunk(2), -1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("aside", "what the source says does not depend on layer 'aside'; name another"),
        ("parts", r"layer 'parts' returned \(4, 3, 6, 4\) for 2 images; expected the images first"),
        ("other", "the source has no layer 'other'"),
    ],
)
def test_unsuited_layers(layer, message):
    images, labels = scene(2, 6, 8)
    with pytest.raises(ValueError, match=message):
        IterativeAttack(FIA([layer], 2), Linf(PIXELS))(Misled(), images, labels, [5, 6])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FIA("auto"), "layers='auto': must be a list"),
        (lambda: FIA(samples=0), "samples=0: must be 1 or more"),
        (lambda: FIA(drop=1), "drop=1: must be 0 or more, below 1; the paper's is 0.3"),
        (lambda: NAA(gamma=float("nan")), "gamma=nan: must be a number, 0 or more"),
        (lambda: NAA(noise=-1), "noise=-1: must be a number above 0"),
        (lambda: BFA(reach="a"), "reach='a': must be a number above 0"),
        (lambda: FIA()(prediction(), Moment(0, 1)), "FIA has no weights yet"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def prediction():
    return Prediction(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long(), features={"auto": torch.ones(1, 2, 1, 1)})

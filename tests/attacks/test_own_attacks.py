"""Attacks with loops of their own, against second versions of them and answers known without a program."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks.base import NoAttack
from lightning_attack.attacks.gradient_transforms.base import Momentum, TranslationInvariance
from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.loops.alma_prox import ALMAProx, proximal_linf
from lightning_attack.attacks.loops.apgd import APGD, checkpoints
from lightning_attack.attacks.loops.dag import DAG
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.loops.patch_wise import PatchWise
from lightning_attack.attacks.loops.svre import SVRE
from lightning_attack.attacks.norms import L2, Linf
from lightning_attack.attacks.objectives.base import CrossEntropy, SegPGD
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.wrappers.peer import Peer
from lightning_attack.attacks.wrappers.worst_case import WorstCase
from tests.attacks.toys import CLASSES, PIXELS, curved, half_right, scene, share_of_differences

STEPS, STEP = 6, 0.01
BALL = Linf(PIXELS)


class Together(nn.Module):
    """An ensemble: the mean of its members' logits."""

    by = "logits"

    def __init__(self, *members, by="logits"):
        super().__init__()
        self.members, self.weights, self.by = nn.ModuleList(members), [1 / len(members)] * len(members), by

    def forward(self, x):
        return sum(weight * member(x) for member, weight in zip(self.members, self.weights, strict=True))


def pgd(steps=STEPS, objective=None, norm=BALL, random_start=False, name="pgd", step_size=STEP):
    return IterativeAttack(objective or CrossEntropy(), norm, steps, step_size, random_start, name=name)


def two():
    return Together(curved(seed=0), curved(seed=1))


ATTACKS = [
    pytest.param(PatchWise(CrossEntropy(), BALL, 3, STEP, 3.0), id="pi_fgsm"),
    pytest.param(APGD(SegPGD(), BALL, 6), id="apgd"),
    pytest.param(APGD(SegPGD(), L2(1.0), 6), id="apgd-l2"),
    pytest.param(APGD(SegPGD(), BALL, 6, False, (1.0,), (1.0,)), id="apgd-plain"),
    pytest.param(WorstCase([pgd(3), pgd(2, SegPGD(), random_start=True)]), id="worst"),
    pytest.param(ALMAProx(4, step_size=0.01), id="alma_prox"),
    pytest.param(DAG(4, 0.01), id="dag"),
    pytest.param(SVRE(CrossEntropy(), BALL, 2, inner_steps=3), id="svre"),
    pytest.param(SVRE(CrossEntropy(), L2(1.0), 2, 0.5, random_start=True), id="svre-l2"),
    pytest.param(PatchWise(SegPGD(), BALL, 3, STEP, input_transforms=[InputDiversity()]), id="pi-di"),
]
every_attack = pytest.mark.parametrize("attack", ATTACKS)


def length(attack, change):
    norm = getattr(attack, "norm", BALL)
    return norm.size(change.double())


def radius(attack):
    return attack.norm.eps if hasattr(attack, "norm") else 1.0


# What every attack promises, here with an ensemble as source.


@every_attack
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 33, 21)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("targeted", [False, True])
def test_result(attack, shape, dtype, targeted):
    model = two().to(dtype)
    images, labels = scene(*shape, dtype=dtype, seed=3)
    images[:, :, 0], images[:, :, -1] = 0, 1
    labels = half_right(model, images, labels)
    region = torch.rand(labels.shape, generator=torch.Generator().manual_seed(5)) < 0.7
    before, seeds = images.clone(), list(range(len(images)))
    for where in (None, region):
        adversarial = attack(model, images, labels, seeds, targeted=targeted, region=where)
        assert adversarial.shape == images.shape
        assert adversarial.dtype == dtype
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        assert length(attack, adversarial - images).max() <= radius(attack) + 1e-6
        assert torch.equal(images, before)
        assert torch.equal(adversarial, attack(model, images, labels, seeds, targeted=targeted, region=where))
    assert torch.equal(adversarial[~region[:, None].expand_as(images)], images[~region[:, None].expand_as(images)])


@every_attack
def test_moves_every_image(attack):
    model = two()
    images, labels = scene(3, 12, 10)
    labels = half_right(model, images, labels)
    adversarial = attack(model, images, labels, [1, 2, 3])
    assert bool((length(attack, adversarial - images) > 0).all())


@every_attack
def test_batch_equals_images_one_by_one(attack):
    model = two()
    images, labels = scene(4, 33, 21)
    labels = half_right(model, images, labels)
    labels[3] = 255
    together = attack(model, images, labels, [5, 6, 7, 8])
    exact = "L2" not in str(attack.settings()) and not isinstance(attack, ALMAProx | DAG)
    for i in range(4):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], [5 + i])[0]
        assert torch.equal(together[i], alone) if exact else torch.allclose(together[i], alone, rtol=0, atol=1e-12)
    assert torch.equal(together[3], images[3])
    assert not torch.equal(together[0], images[0])


@every_attack
def test_ignored_pixels_have_no_say(attack):
    model = two()
    images, labels = scene(2, 16, 40)
    labels = half_right(model, images, labels)
    labels[:, :, 20:] = 255

    class Meddled(Together):
        def forward(self, x):
            logits = super().forward(x)
            other = logits.flip(1) * 3 + x.mean() * torch.arange(CLASSES).view(-1, 1, 1) * 100
            return torch.where(torch.arange(40) >= 32, other, logits)

    meddled = Meddled(*(Meddled(member) for member in model.members))
    assert torch.equal(attack(meddled, images, labels, [1, 2]), attack(model, images, labels, [1, 2]))


@every_attack
def test_log_is_called_once_a_step(attack):
    seen = []
    images, labels = scene(2, 8, 8)
    labels[1] = 255
    attack(two(), images, labels, [1, 2], log=lambda step, figures: seen.append((step, figures)))
    assert [step for step, _ in seen] == list(range(attack.steps))
    for _, figures in seen:
        assert {"loss", "p_t"} <= set(figures)
        assert all(values.shape == (2,) and not values.requires_grad for values in figures.values())
        assert not figures["loss"][0].isnan()


@every_attack
def test_settings_are_plain(attack):
    plain = attack.settings()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@every_attack
def test_wrong_labels_are_named(attack):
    images, labels = scene(1, 8, 8)
    labels[0, 0, 0] = CLASSES
    with pytest.raises((ValueError, IndexError), match=r"labels range over 0..5|out of bounds"):
        attack(two(), images, labels, [1])


@pytest.mark.parametrize("attack", [case for case in ATTACKS if not isinstance(case.values[0], SVRE)])
def test_images_a_hair_outside_the_range(attack):
    images, labels = scene(1, 8, 8)
    images[:, :, 0], images[:, :, -1] = -1e-7, 1 + 1e-7
    adversarial = attack(curved(), images, labels, [1])
    assert adversarial.min() >= -1e-7
    assert adversarial.max() <= 1 + 1e-7
    saved = attack.quantize(images, adversarial)
    assert saved.min() >= 0
    assert saved.max() <= 1


# Patch-wise.


def patch_wise_loop(model, images, labels, amplification, gamma, size):
    """The formulas with explicit neighbours."""
    x, asked = images, torch.zeros_like(images)
    half = size // 2
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        F.cross_entropy(model(x), labels, ignore_index=255, reduction="sum").backward()
        move = amplification * STEP * torch.sign(x.grad)
        asked = asked + move
        outside = torch.clip(asked.abs() - PIXELS, min=0) * torch.sign(asked)
        around = torch.zeros_like(outside)
        padded = F.pad(outside, (half, half, half, half))
        for row in range(size):
            for column in range(size):
                if (row, column) != (half, half):
                    around += padded[:, :, row : row + images.shape[2], column : column + images.shape[3]]
        around = torch.where(around.abs() / (size**2 - 1) < 1e-5, 0, around)
        spread = gamma * torch.sign(around)
        asked = asked + spread
        x = x.detach() + move + spread
        x = torch.clip(images + torch.clip(x - images, -PIXELS, PIXELS), 0, 1)
    return x


@pytest.mark.parametrize(("amplification", "gamma", "size"), [(3.0, None, 3), (2.5, 0.01, 5)])
def test_patch_wise(amplification, gamma, size):
    model = curved()
    images, labels = scene(2, 24, 20)
    labels = half_right(model, images, labels)
    attack = PatchWise(CrossEntropy(), BALL, STEPS, STEP, amplification, gamma, size)
    ours = attack(model, images, labels)
    assert torch.equal(ours, patch_wise_loop(model, images, labels, amplification, gamma or PIXELS, size))
    assert share_of_differences(ours, pgd()(model, images, labels)) > 0.01
    assert share_of_differences(ours, pgd(step_size=amplification * STEP)(model, images, labels)) > 0.01


def test_patch_wise_is_the_peers():
    torchattacks = pytest.importorskip("torchattacks", reason="the independent implementation is optional")
    model = curved(torch.float32)
    images, labels = scene(1, 64, 64, ignored=0, dtype=torch.float32)
    theirs = torchattacks.PIFGSM(model, max_epsilon=PIXELS, num_iter_set=10, amplification=10.0)(images, labels)
    ours = PatchWise(CrossEntropy(), BALL, 10, PIXELS / 10)(model, images, labels)
    # Where neighbours cancel, theirs follow a rounding error.
    assert float(((ours - theirs).abs() > 1e-5).double().mean()) < 0.03


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": L2(1.0)}, "norm='l2': the patch-wise attack is for linf"),
        ({"amplification": 0}, "amplification=0: must be a number above 0"),
        ({"kernel_size": 4}, "kernel_size=4: must be odd and 3 or more"),
        ({"kernel_size": 1}, "kernel_size=1: must be odd"),
        ({"gamma": 0}, "gamma=0: must be a number above 0"),
    ],
)
def test_patch_wise_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        PatchWise(**({"objective": CrossEntropy(), "norm": BALL} | settings))


# APGD.


class Spy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach())
        return self.model(x)


def unfooled(model, x, labels, targeted=False):
    with torch.no_grad():
        right = model(x).argmax(1) == labels
    return ((~right & (labels != 255)) if targeted else right).flatten(1).sum(1)


def control(model, x, labels):
    with torch.no_grad():
        return F.cross_entropy(model(x), labels, ignore_index=255, reduction="none").flatten(1).sum(1)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "radii", "shares"), [
    (BALL, (2.0, 1.5, 1.0), (0.3, 0.3, 0.4)),
    (BALL, (1.0,), (1.0,)),
    (L2(1.0), (2.0, 1.5, 1.0), (0.3, 0.3, 0.4)),
])  # fmt: skip
def test_apgd_returns_its_best_iterate(norm, radii, shares, targeted):
    model, (images, labels) = curved(), scene(3, 16, 12)
    labels = half_right(model, images, labels)
    spy, attack = Spy(model), APGD(SegPGD(), norm, 40, True, radii, shares)
    result = attack(spy, images, labels, [1, 2, 3], targeted=targeted)
    assert len(spy.seen) == 40
    *_, first = [0, *attack.ends()[:-1]]
    last_ball = spy.seen[first:]
    for i in range(3):
        inside = [x[i : i + 1] for x in last_ball]
        assert all(norm.size(x - images[i : i + 1]) <= norm.eps + 1e-9 for x in inside)
        sign = -1 if targeted else 1
        scores = [
            (int(unfooled(model, x, labels[i : i + 1], targeted)), -sign * float(control(model, x, labels[i : i + 1])))
            for x in inside
        ]
        ours = result[i : i + 1]
        score = int(unfooled(model, ours, labels[i : i + 1], targeted))
        assert score == min(scores)[0]
        assert -sign * float(control(model, ours, labels[i : i + 1])) == pytest.approx(min(scores)[1], abs=1e-9)
    if len(radii) > 1:
        assert max(float(norm.size(x - images).max()) for x in spy.seen[: first - 1]) > 1.2 * norm.eps


def apgd_loop(model, image, label, steps, start):
    """Plain APGD on one image, the points and best values kept in lists."""
    points, losses, gradients = [], [], []

    def look(x):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(model(x), label, ignore_index=255, reduction="sum")
        loss.backward()
        return x.detach(), float(loss.detach()), x.grad

    def clip(x):
        return torch.clip(image + torch.clip(x - image, -PIXELS, PIXELS), 0, 1)

    x, loss, gradient = look(start)
    everything = [x]
    points, losses, gradients = [x], [loss], [gradient]
    size, halvings = 2 * PIXELS, 0
    top = (loss, x, gradient)
    marks, period = [0], max(int(0.22 * steps), 1)
    while marks[-1] + period < steps:
        marks.append(marks[-1] + period)
        period = max(period - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    history, tops = [], [loss]
    rises = 0
    for t in range(1, steps):
        z = clip(points[-1] + size * torch.sign(gradients[-1]))
        if t > 1:
            z = clip(points[-1] + 0.75 * (z - points[-1]) + 0.25 * (points[-1] - points[-2]))
        x, loss, gradient = look(z)
        everything.append(x)
        rises += loss > losses[-1]
        if loss > top[0]:
            top = (loss, x, gradient)
        if t in marks:
            length = t - marks[marks.index(t) - 1]
            unchanged = not (history and history[-1]) and top[0] == tops[-1]
            history.append(rises < 0.75 * length or unchanged)
            tops.append(top[0])
            rises = 0
            if history[-1]:
                size, halvings = size / 2, halvings + 1
                loss, x, gradient = top
        points.append(x)
        losses.append(loss)
        gradients.append(gradient)
    return everything, halvings


def test_apgd_is_the_algorithm():
    model, (images, labels) = curved(), scene(2, 16, 12)
    labels = half_right(model, images, labels)
    spy = Spy(model)
    APGD(CrossEntropy(), BALL, 60, True, (1.0,), (1.0,))(spy, images, labels, [7, 8])
    starts = BALL.start(images, Draws([7, 8]))
    for i in range(2):
        points, halvings = apgd_loop(model, images[i : i + 1], labels[i : i + 1], 60, starts[i : i + 1])
        assert halvings >= 3
        assert torch.equal(torch.cat(points), torch.stack([x[i] for x in spy.seen]))


# In L2 both climb to tops of their own, which differ by less than a hundredth.
@pytest.mark.parametrize(("norm", "share"), [(BALL, 1.0), (L2(1.0), 0.99)], ids=["linf", "l2"])
def test_apgd_climbs_at_least_as_high_as_pgd(norm, share):
    model, (images, labels) = curved(), scene(4, 16, 12)
    labels = half_right(model, images, labels)
    spy = Spy(model)
    APGD(CrossEntropy(), norm, 100, False, (1.0,), (1.0,))(spy, images, labels, [1, 2, 3, 4])
    ours = torch.stack([control(model, x, labels) for x in spy.seen]).amax(0)
    theirs = pgd(100, norm=norm, step_size=norm.eps / 4)(model, images, labels)
    assert bool((ours >= share * control(model, theirs, labels)).all())


def test_apgd_sees_an_ensemble_by_loss_as_a_whole():
    model = Together(curved(seed=0), curved(seed=1), by="loss")
    images, labels = scene(2, 12, 10)
    labels = half_right(model, images, labels)
    spies = [Spy(member) for member in model.members]
    attack = APGD(CrossEntropy(), BALL, 12, True, (1.0,), (1.0,))
    result = attack(Together(*spies, by="loss"), images, labels, [1, 2])
    fewest = torch.stack([unfooled(model, x, labels) for x in spies[0].seen]).amin(0)
    assert torch.equal(unfooled(model, result, labels), fewest)


def test_parts_of_the_radius_schedule():
    assert APGD(CrossEntropy(), BALL, 300).ends() == [90, 180, 300]
    assert APGD(CrossEntropy(), BALL, 1).ends() == [0, 0, 1]
    assert sorted(checkpoints(300)) == [66, 123, 171, 210, 240, 261, 279, 297]
    assert checkpoints(1) == {}
    assert checkpoints(4) == {1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radii": (2.0, 1.5)}, "the last is 1"),
        ({"radii": ()}, "the last is 1"),
        ({"radii": (0.0, 1.0), "shares": (0.5, 0.5)}, "above 0"),
        ({"shares": (0.5, 0.5)}, "must be 3 numbers"),
        ({"shares": (0.5, 0.5, 0.5)}, "of sum 1"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_apgd_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        APGD(CrossEntropy(), BALL, **settings)


# Worst case.


def miou(predictions, labels):
    scores = []
    for c in range(CLASSES):
        if (labels == c).any():
            both = ((predictions == c) & (labels == c)).sum()
            either = ((predictions == c) & (labels != 255) | (labels == c)).sum()
            scores.append(float(both) / float(either))
    return sum(scores) / len(scores)


def parts():
    return [
        pgd(2, random_start=True, name="a"),
        pgd(3, SegPGD(), random_start=True, name="b"),
        pgd(1, step_size=PIXELS, name="c"),
        APGD(CrossEntropy(), BALL, 6),
    ]


@pytest.mark.parametrize("targeted", [False, True])
def test_worst_case_by_accuracy_is_the_minimum(targeted):
    model, (images, labels) = curved(), scene(6, 10, 10)
    labels = half_right(model, images, labels)
    seeds = list(range(6))
    worst = WorstCase(parts())(model, images, labels, seeds, targeted=targeted)
    alone = torch.stack([part(model, images, labels, seeds, targeted=targeted) for part in parts()])
    counts = torch.stack([unfooled(model, result, labels, targeted) for result in alone])
    assert torch.equal(unfooled(model, worst, labels, targeted), counts.amin(0))
    assert len(set(counts.argmin(0).tolist())) > 1, "several parts must win for the test to mean something"
    for i, winner in enumerate(counts.argmin(0).tolist()):
        assert torch.equal(worst[i], alone[winner, i])


@pytest.mark.parametrize("targeted", [False, True])
def test_worst_case_by_miou_is_a_local_minimum_below_every_part(targeted):
    model, (images, labels) = curved(), scene(6, 10, 10)
    labels = half_right(model, images, labels)
    seeds, sign = list(range(6)), -1 if targeted else 1

    def score(x):
        with torch.no_grad():
            return sign * miou(model(x).argmax(1), labels)

    worst = WorstCase(parts(), by="miou")(model, images, labels, seeds, targeted=targeted)
    alone = [part(model, images, labels, seeds, targeted=targeted) for part in parts()]
    assert score(worst) < min(map(score, alone))
    for i in range(6):
        assert any(torch.equal(worst[i], result[i]) for result in alone)
        for result in alone:
            other = worst.clone()
            other[i] = result[i]
            assert score(worst) <= score(other) + 1e-12
    one = WorstCase(parts(), by="miou")(model, images[:1], labels[:1], seeds[:1], targeted=targeted)
    assert one.shape == images[:1].shape


def test_worst_case_is_one_attack_to_others():
    attack = WorstCase([WorstCase(parts()[:2]), parts()[2]])
    assert attack.steps == 6
    assert attack.norm is attack.attacks[0].norm
    assert attack.targetable
    assert not attack.mixes
    images = torch.full((1, 3, 1, 1), 100 / 255)
    assert torch.equal(attack.quantize(images, images + 8.4 / 255), BALL.quantize(images, images + 8.4 / 255))
    with pytest.raises(ValueError, match="needs an ensemble"):
        WorstCase([SVRE(CrossEntropy(), BALL)]).check_model(curved())


@pytest.mark.parametrize(
    ("attacks", "by", "message"),
    [
        ([], "accuracy", "give one or more"),
        ([pgd()], "iou", "by='iou': must be one of accuracy, miou"),
        ([pgd(), DAG()], "accuracy", "dag has no norm to stay in"),
        ([NoAttack()], "accuracy", "no_attack has no norm"),
        ([pgd(), pgd(norm=L2(1.0))], "miou", r"pgd has the budget linf 0.0313725, pgd l2 1"),
        ([pgd(), pgd(norm=Linf(0.1), name="x")], "miou", r"x linf 0.1: the worst case is one of equal budgets"),
    ],
)
def test_worst_case_errors(attacks, by, message):
    with pytest.raises(ValueError, match=message):
        WorstCase(attacks, by)


# Smallest norms.


def linear(weights, bias):
    model = nn.Conv2d(3, len(weights), 1).double()
    model.weight.data = torch.tensor(weights, dtype=torch.float64)[:, :, None, None]
    model.bias.data = torch.tensor(bias, dtype=torch.float64)
    return model


def needed(model, images, labels, threshold, targeted=False):
    """Smallest L-inf norm for each image by halving the radius: with it every value goes where it helps most."""
    weights, results = model.weight[:, :, 0, 0].detach(), []
    for image, label in zip(images, labels, strict=True):
        known = label != 255
        x, y = image[:, known].T, label[known]
        low, high = 0.0, 1.0
        for _ in range(50):
            eps, won = (low + high) / 2, torch.zeros(len(y), dtype=torch.bool)
            for other in range(len(weights)):
                goal = (y if targeted else torch.full_like(y, other), torch.full_like(y, other) if targeted else y)
                pull = weights[goal[0]] - weights[goal[1]]
                moved = torch.clip(x + eps * torch.sign(pull), 0, 1)
                logits = moved @ weights.T + model.bias.detach()
                wins = logits.argmax(1)
                won |= (wins == y) if targeted else (wins != y)
            enough = float(won.double().mean()) >= threshold - 1e-9
            low, high = (low, eps) if enough else (eps, high)
        results.append(high)
    return torch.tensor(results, dtype=torch.float64)


# All classes tie at gray.
TWO = linear([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]], [-0.5, 0.5])
# All pairs of classes are equally far apart, so that the class with the nearest logit is the nearest in L-inf too.
THREE = linear([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 0.0])


def linear_scene(model, targeted):
    images = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1 + 0.45
    # Black in one colour, which the attack would like to lower: the others must go further.
    images[1, :, :2] = torch.tensor([0.22, 0.01, 0.22]).view(3, 1, 1)
    labels = model(images).argmax(1) if not targeted else (model(images).argmax(1) + 1) % model.out_channels
    labels[:, 0, 3] = 255
    return images, labels


@pytest.mark.parametrize("threshold", [0.99, 0.9])
@pytest.mark.parametrize(
    ("model", "targeted"), [(TWO, False), (TWO, True), (THREE, False)], ids=["two", "two-targeted", "three"]
)
def test_alma_prox_finds_the_smallest_norm(model, targeted, threshold):
    images, labels = linear_scene(model, targeted)
    smallest = needed(model, images, labels, threshold, targeted)
    seen = []
    adversarial = ALMAProx(400, threshold)(model, images, labels, targeted=targeted, log=lambda _, f: seen.append(f))
    found = Linf(1.0).size(adversarial - images)
    wrong = unfooled(model, adversarial, labels, targeted) / (labels != 255).flatten(1).sum(1)
    assert bool((wrong <= 1 - threshold + 1e-9).all())
    assert bool((found >= smallest - 1e-9).all())
    assert bool((found <= 1.05 * smallest).all()), found / smallest
    assert torch.equal(seen[-1]["linf"], found)
    assert bool(seen[-1]["success"].all())
    assert bool(seen[0]["linf"].isnan().all())


@pytest.mark.parametrize("targeted", [False, True])
def test_dag_finds_the_smallest_norm_where_all_values_count_alike(targeted):
    images, labels = linear_scene(TWO, targeted)
    images[1, :, :2] = 0.48
    smallest = needed(TWO, images, labels, 0.99, targeted)
    adversarial = DAG(400, "0.1/255")(TWO, images, labels, targeted=targeted)
    found = Linf(1.0).size(adversarial - images)
    assert bool((found >= smallest - 1e-9).all())
    assert bool((found <= 1.05 * smallest).all()), found / smallest


@pytest.mark.parametrize("attack", [DAG(3, 0.005), ALMAProx(3, step_size=0.002)])
def test_without_success_the_most_fooled_iterate(attack):
    model, seen = curved(), []
    images, labels = scene(2, 10, 10)
    labels = half_right(model, images, labels)
    spy = Spy(model)
    adversarial = attack(spy, images, labels, log=lambda _, figures: seen.append(figures))
    assert not seen[-1]["success"].any()
    assert seen[-1]["linf"].isnan().all()
    best = torch.stack([unfooled(model, x, labels) for x in spy.seen]).amin(0)
    assert torch.equal(unfooled(model, adversarial, labels), best)
    assert bool((best < unfooled(model, images, labels)).all())


@pytest.mark.parametrize("attack", [DAG(5), ALMAProx(5)])
def test_an_image_that_is_wrong_already_stays(attack):
    images, labels = linear_scene(TWO, True)
    assert torch.equal(attack(TWO, images, labels), images)


def test_proximal_step_against_a_grid():
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(3, 3, 2, 2, generator=generator, dtype=torch.float64)
    metric = torch.rand(3, 3, 2, 2, generator=generator, dtype=torch.float64) + 0.1
    low, high = -torch.rand(3, 3, 2, 2, generator=generator, dtype=torch.float64), torch.full_like(v, 0.7)
    lengths = torch.tensor([0.05, 0.5, 100.0], dtype=torch.float64).view(-1, 1, 1, 1)
    ours = proximal_linf(v, lengths, metric, low, high)

    def value(u):
        return lengths.flatten() * u.flatten(1).abs().amax(1) + (metric * (u - v) ** 2).flatten(1).sum(1) / 2

    cut = v.clamp(low, high)
    best = torch.stack([value(cut.clamp(-t / 2000, t / 2000)) for t in range(2001)]).amin(0)
    assert bool((value(ours) <= best + 1e-6).all())
    assert float(ours[2].abs().max()) < 1e-6


@pytest.mark.parametrize("kind", [DAG, ALMAProx])
def test_minimal_norm_errors(kind):
    for settings, message in (
        ({"steps": 0}, "steps=0"),
        ({"threshold": 0.0}, "threshold=0.0: must be above 0 and at most 1"),
        ({"threshold": 1.1}, "threshold=1.1"),
        ({"step_size": 0}, "step_size=0"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(**settings)


# SVRE.


def svre_loop(ensemble, images, labels, order, decay, step=STEP):
    def gradient(model, x):
        x = x.detach().requires_grad_()
        F.cross_entropy(model(x), labels, ignore_index=255, reduction="sum").backward()
        return x.grad

    def unit(g):
        return g / g.abs().mean((1, 2, 3), keepdim=True)

    def move(x, direction):
        return torch.clip(images + torch.clip(x + step * torch.sign(direction) - images, -PIXELS, PIXELS), 0, 1)

    x, outer_momentum = images, 0
    for t in range(STEPS):
        whole, inner, inner_momentum = gradient(ensemble, x), x, 0
        for k in order(t):
            reduced = gradient(ensemble.members[k], inner) - (gradient(ensemble.members[k], x) - whole)
            inner_momentum = decay * inner_momentum + unit(reduced)
            inner = move(inner, inner_momentum)
        outer_momentum = decay * outer_momentum + unit(inner_momentum)
        x = move(x, outer_momentum)
    return x


@pytest.mark.parametrize(("inner", "decay"), [(None, 1.0), (3, 0.5)])
def test_svre(inner, decay):
    model = two()
    images, labels = scene(2, 16, 12)
    labels = half_right(model, images, labels)
    attack = SVRE(CrossEntropy(), BALL, STEPS, STEP, inner, decay)
    ours = attack(model, images, labels)
    assert torch.equal(ours, svre_loop(model, images, labels, lambda t: attack.order(2, [0.5, 0.5], t), decay))
    assert [len(attack.order(2, [0.5, 0.5], t)) for t in range(2)] == [8 if inner is None else inner] * 2
    other = SVRE(CrossEntropy(), BALL, STEPS, STEP, inner, decay, order_seed=1)
    assert share_of_differences(ours, other(model, images, labels)) > 0.001


def test_svre_without_variance_is_a_loop_on_one_network():
    member = curved()
    images, labels = scene(2, 16, 12)
    labels = half_right(member, images, labels)
    attack = SVRE(CrossEntropy(), BALL, STEPS, STEP, inner_steps=3)
    ours = attack(Together(member, member), images, labels)
    assert torch.equal(ours, svre_loop(Together(member), images, labels, lambda t: [0, 0, 0], 1.0))


def test_svre_smooths_every_gradient():
    model = two()
    images, labels = scene(2, 16, 12)
    plain = SVRE(CrossEntropy(), BALL, 2)
    smooth = SVRE(CrossEntropy(), BALL, 2, gradient_transforms=[TranslationInvariance(5)])
    none = SVRE(CrossEntropy(), BALL, 2, gradient_transforms=[TranslationInvariance(1)])
    assert torch.equal(none(model, images, labels), plain(model, images, labels))
    assert share_of_differences(smooth(model, images, labels), plain(model, images, labels)) > 0.01


def test_svre_errors():
    images, labels = scene(1, 4, 4)
    with pytest.raises(ValueError, match=r"svre needs an ensemble .*; Sequential has none"):
        SVRE(CrossEntropy(), BALL)(curved(), images, labels)
    with pytest.raises(ValueError, match="inner_steps=0"):
        SVRE(CrossEntropy(), BALL, inner_steps=0)
    with pytest.raises(ValueError, match="decay=-1"):
        SVRE(CrossEntropy(), BALL, decay=-1)
    with pytest.raises(ValueError, match="Momentum must be asked once a step"):
        SVRE(CrossEntropy(), BALL, gradient_transforms=[Momentum()])


# Peers.


@pytest.fixture
def _peers():
    pytest.importorskip("torchattacks", reason="optional")


PGD_LIKE_OURS = {"eps": "8/255", "alpha": STEP, "steps": STEPS, "random_start": False}


@pytest.mark.usefixtures("_peers")
@pytest.mark.parametrize("targeted", [False, True])
def test_peer_is_our_bim(targeted):
    model, (images, labels) = curved(), scene(1, 64, 64, ignored=0)
    labels = half_right(model, images, labels)
    theirs = Peer("torchattacks.PGD", PGD_LIKE_OURS)(model, images, labels, [1], targeted=targeted)
    assert torch.equal(theirs, pgd()(model, images, labels, [1], targeted=targeted))
    assert not torch.equal(theirs, images)


@pytest.mark.usefixtures("_peers")
def test_peer_with_ignored_pixels_region_and_seeds():
    peer = Peer("torchattacks.PGD", {"eps": "8/255", "steps": 3})
    model, (images, labels) = curved(), scene(3, 16, 12)
    labels[2] = 255
    region = torch.rand(labels.shape, generator=torch.Generator().manual_seed(5)) < 0.7
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    together = peer(lambda x: model(x), images, labels, [5, 6, 7], region=region)
    assert torch.equal(torch.rand(1), expected), "the global generator is put back"
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.equal(peer(model, images[one], labels[one], [5 + i], region=region[one])[0], together[i])
    assert torch.equal(together[2], images[2])
    outside = ~region[:, None].expand_as(images)
    assert torch.equal(together[outside], images[outside])
    assert BALL.size(together - images).max() <= PIXELS + 1e-9
    assert not torch.equal(together[0], peer(model, images[:1], labels[:1], [9], region=region[:1])[0])
    plain = peer(model, images, labels, [5, 6, 7])
    hidden = torch.where((labels == 255)[:, None], 100 * torch.arange(CLASSES).view(-1, 1, 1), 0)
    assert torch.equal(peer(lambda x: model(x) + hidden[:1], images[:1], labels[:1], [5])[0], plain[0])
    assert json.loads(json.dumps(peer.settings())) == {
        "class": "Peer",
        "name": "torchattacks_pgd",
        "attack": "torchattacks.PGD",
        "settings": {"eps": 8 / 255, "steps": 3},
    }


@pytest.mark.usefixtures("_peers")
@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        ("torchattack.PGD", {}, "must be torchattacks. and the name of a class"),
        ("torchattacks.PDG", {}, "no such attack; the nearest are .*PGD"),
        ("torchattacks.MultiAttack", {}, "no such attack"),
        ("torchattacks.PGD", {"step": 3}, "unexpected keyword argument 'step'; settings are eps, alpha, steps"),
        ("torchattacks.PGD", {"model": 3}, "the model is given by the run"),
        ("torchattacks.PGD", {"eps": "8/0"}, "eps='8/0': must be a number above 0"),
    ],
)
def test_peer_errors(attack, settings, message):
    with pytest.raises(ValueError, match=message):
        Peer(attack, settings)


@pytest.mark.usefixtures("_peers")
def test_peer_without_a_targeted_mode():
    images, labels = scene(1, 4, 4)
    peer = Peer("torchattacks.PIFGSM")
    assert not peer.targetable
    with pytest.raises(ValueError, match="torchattacks_pifgsm cannot be targeted"):
        peer(curved(), images, labels, targeted=True)


def test_peer_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchattacks", None)
    with pytest.raises(ValueError, match=r"pip install --no-deps torchattacks==3.5.1"):
        Peer("torchattacks.PGD")


def test_apgd_steps_as_far_as_the_ball_of_its_radius_is_wide():
    """In the ball of 2 eps steps begin at 4 eps: the third point may lie farther from the second than 2.2 eps."""
    images, labels = scene(2, 16, 16)
    images, eps = 0.4 + 0.2 * images, 0.05
    model, shown = curved(), []
    hook = model.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach()))
    attack = APGD(CrossEntropy(), Linf(eps), steps=20, random_start=False, radii=(2.0, 1.0), shares=(0.5, 0.5))
    attack(model, images, half_right(curved(), images, labels))
    hook.remove()
    assert float((shown[1] - images).abs().max()) == pytest.approx(2 * eps)
    assert float((shown[2] - shown[1]).abs().max()) > 2.2 * eps

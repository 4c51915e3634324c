"""`APGD` against a second version of it, and what it promises."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks.loops.apgd import APGD, checkpoints
from lightning_attack.attacks.norms import L2, Linf
from lightning_attack.attacks.objectives.base import CrossEntropy, SegPGD
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import (
    BALL,
    PIXELS,
    Spy,
    Together,
    control,
    curved,
    half_right,
    pgd,
    scene,
    unfooled,
)


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

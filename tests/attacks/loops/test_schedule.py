"""Step schedules and the last move to a corner, on a network whose gradient never changes its sign."""

from itertools import pairwise

import pytest
import torch

from lightning_attack.attacks import Linf, UntilFooled, bim, masked_pgd, pgd, pi_fgsm, svre, transegpgd
from lightning_attack.attacks.loops.schedule import step_factor
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import CLASSES, curved, half_right, scene

STEPS, STEP = 5, 0.01


def iterates(schedule, **settings):
    """How far each value has moved after each step: a linear network, a ball that is never reached."""
    model = torch.nn.Conv2d(3, CLASSES, 1, dtype=torch.float64)
    images, labels = torch.full((2, 3, 2, 2), 0.5, dtype=torch.float64), torch.zeros(2, 2, 2, dtype=torch.int64)
    seen = [images]
    bim(eps=0.4, steps=STEPS, step_size=STEP, step_schedule=schedule, **settings)(
        model, images, labels, [5, 6], watch=lambda step, x: seen.append(x)
    )
    return [(b - a).abs() for a, b in pairwise(seen)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "dynamic"])
def test_steps_have_the_length_that_the_schedule_says(schedule):
    draws = Draws([5, 6])
    for step, moved in enumerate(iterates(schedule)):
        length = STEP * torch.as_tensor(step_factor(schedule, step, STEPS, draws))
        assert torch.allclose(moved, length.double().expand_as(moved), atol=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_all_schedules_go_equally_far(schedule, steps):
    assert sum(step_factor(schedule, step, steps, Draws([0])) for step in range(steps)) == pytest.approx(steps)


def test_dynamic_steps_belong_to_the_image_not_to_the_batch():
    model = curved()
    images, labels = scene(3)
    attack = transegpgd(step_schedule="dynamic", steps=4)
    together = attack(model, images, labels, [1, 2, 3])
    assert torch.equal(attack(model, images[1:2], labels[1:2], [2]), together[1:2])
    assert not torch.equal(transegpgd(steps=4)(model, images, labels, [1, 2, 3]), together)
    factors = torch.stack([step_factor("dynamic", step, 200, Draws([step])) for step in range(200)])
    assert 0.9 < factors.mean() < 1.1
    assert factors.max() > 1.9


def test_the_finish_is_the_nearest_corner_also_where_it_is_watched():
    model = curved()
    images, labels = scene(2)
    seen, plain = [], []
    region = torch.rand(labels.shape) < 0.5
    settings, given = {"eps": 0.1, "steps": 3, "step_size": 0.01}, (model, images, labels, [1, 2])
    result = pgd(**settings, finish="sign")(*given, region=region, watch=lambda _, x: seen.append(x))
    pgd(**settings)(*given, region=region, watch=lambda _, x: plain.append(x))
    assert torch.equal(result, seen[-1])
    for one, other in zip(seen, plain, strict=True):
        assert torch.equal(one, (images + 0.1 * (other - images).sign()).clamp(0, 1))
    assert torch.equal(result.movedim(1, -1)[~region], images.movedim(1, -1)[~region])


def test_images_that_leave_the_batch_take_the_same_steps():
    model = curved()
    images, labels = scene(3)
    labels = half_right(model, images, labels)
    attack = masked_pgd(steps=6, step_schedule="dynamic", finish="sign")
    assert torch.equal(UntilFooled(attack)(model, images, labels, [1, 2, 3]), attack(model, images, labels, [1, 2, 3]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pgd(step_schedule="falling"),
            "'falling': must be one of constant, cosine, linear, dynamic",
        ),
        (lambda: pgd(finish="corner"), "finish='corner': must be sign or null"),
        (lambda: pgd(norm="l2", eps=1.0, finish="sign"), "the ball of l2 has no corners; use linf"),
        (lambda: pi_fgsm(step_schedule="cosine"), "pi_fgsm has a loop of its own: step_schedule must be constant"),
        (lambda: svre(finish="sign"), "svre has a loop of its own: .* finish null"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_corner_is_as_far_as_the_ball_reaches():
    delta = torch.tensor([[[[-0.01, 0.0, 0.2]]]])
    assert Linf(0.25).corner(delta).tolist() == [[[[-0.25, 0.0, 0.25]]]]

"""`SVRE` against a second version of it."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks.gradient_transforms.base import Momentum, TranslationInvariance
from lightning_attack.attacks.loops.svre import SVRE
from lightning_attack.attacks.objectives.base import CrossEntropy
from tests.attacks.toys import (
    BALL,
    PIXELS,
    STEP,
    STEPS,
    Together,
    curved,
    half_right,
    scene,
    share_of_differences,
    two,
)


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
    with pytest.raises(ValueError, match="Momentum must be evaluated once a step"):
        SVRE(CrossEntropy(), BALL, gradient_transforms=[Momentum()])

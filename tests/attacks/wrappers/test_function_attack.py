"""Functions of others in the place of an attack."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_attack.attacks import FunctionAttack, bim
from lightning_attack.attacks.errors import AttackError

NETWORK = nn.Conv2d(3, 4, 3, padding=1)
IMAGES = torch.rand(3, 3, 6, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(4, (3, 6, 7), generator=torch.Generator().manual_seed(0))


def their_bim(model, images, labels, steps=4, targeted=False):
    adversarial = images.clone()
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = nn.functional.cross_entropy(model(adversarial), labels, ignore_index=255)
        (gradient,) = torch.autograd.grad(-loss if targeted else loss, adversarial)
        adversarial = adversarial.detach() + 0.01 * gradient.sign()
        adversarial = (images + (adversarial - images).clamp(-8 / 255, 8 / 255)).clamp(0, 1)
    return adversarial


def drawing(model, images, labels):
    change = torch.rand_like(images) + random.random() + float(np.random.random())
    return (images + (change - 1.5) / 100).clamp(0, 1)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_same_attack_gives_the_same_images(targeted):
    theirs = FunctionAttack(their_bim)(NETWORK, IMAGES, LABELS, seeds=[0, 1, 2], targeted=targeted)
    ours = bim(steps=4, step_size=0.01)(NETWORK, IMAGES, LABELS, seeds=[0, 1, 2], targeted=targeted)
    assert torch.allclose(theirs, ours, atol=1e-6)


def test_what_it_draws_is_the_images_own():
    before = torch.get_rng_state(), random.getstate()
    together = FunctionAttack(drawing)(NETWORK, IMAGES, LABELS, seeds=[5, 6, 7])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    alone = FunctionAttack(drawing)(NETWORK, IMAGES[1:2], LABELS[1:2], seeds=[6])
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[1], together[2])


def test_an_image_without_labels_stays_as_it_is():
    def by_the_gradient(model, images, labels):
        adversarial = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(adversarial), labels, ignore_index=255)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        return (images + 8 / 255 * gradient / gradient.abs().max()).clamp(0, 1)

    labels = LABELS.clone()
    labels[1] = 255
    attack = FunctionAttack(by_the_gradient)
    found = attack(NETWORK, IMAGES, labels, seeds=[0, 1, 2])
    assert torch.equal(found[1], IMAGES[1])
    assert torch.equal(found[::2], attack(NETWORK, IMAGES[::2], labels[::2], seeds=[0, 2]))
    assert torch.equal(attack(NETWORK, IMAGES[1:2], labels[1:2], seeds=[1]), IMAGES[1:2])


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda model, images, labels: images * 2 - 0.5, r"values in \[-0.\d+, 1.\d+\]"),
        (lambda model, images, labels: (images + 0.05).clamp(0, 1), r"by up to 12.75/255; expected .* eps=8/255"),
        (lambda model, images, labels: images * float("nan"), "values in"),
        (lambda model, images, labels: images[0], r"returned \(3, 6, 7\) torch.float32"),
        (lambda model, images, labels: None, "returned NoneType"),
    ],
)
def test_what_is_no_image_of_the_budget_is_refused(function, says):
    with pytest.raises(AttackError, match=says):
        FunctionAttack(function)(NETWORK, IMAGES, LABELS)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"function": "nowhere.attack"}, "cannot be imported"),
        ({"function": "attack"}, "cannot be imported"),
        ({"function": "math.pi"}, "is no function"),
        (
            {"function": drawing, "settings": {"steps": 3}},
            r"unexpected keyword argument 'steps'; its arguments are model,",
        ),
        ({"function": drawing, "eps": 8}, "8 levels are 8/255"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ValueError, match=says):
        FunctionAttack(**settings)
    assert not FunctionAttack(drawing).targetable

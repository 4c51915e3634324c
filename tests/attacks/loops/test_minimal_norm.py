"""What the attacks that look for the smallest change have in common."""

import pytest
import torch

from lightning_attack.attacks.loops.alma_prox import ALMAProx
from lightning_attack.attacks.loops.dag import DAG
from tests.attacks.loops.linear import TWO, linear_scene
from tests.attacks.toys import (
    Spy,
    curved,
    half_right,
    scene,
    unfooled,
)


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

"""Attacks that are watched step by step: what is shown, and that nothing changes by it."""

import pytest
import torch

from lightning_attack.attacks import (
    NoAttack,
    PerWindow,
    apgd,
    bim,
    dag,
    mi_fgsm,
    ni_fgsm,
    pgd,
    pi_fgsm,
    sea,
    svre,
    ti_fgsm,
    vmi_fgsm,
)
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.common.windows import Windows
from tests.attacks.test_contract import CASES, PIXELS, radius, size, suited
from tests.attacks.toys import curved, half_right, scene

WATCHABLE = [case for case in CASES if case.values[0].watchable]


def watched(attack, model, images, labels, **arguments):
    shown = []
    result = attack(
        model, images, labels, [1, 2, 3], watch=lambda step, seen: shown.append((step, seen.clone())), **arguments
    )
    assert [step for step, _ in shown] == list(range(len(shown)))
    return result, [seen for _, seen in shown]


@pytest.mark.parametrize("attack", WATCHABLE)
def test_every_step_is_shown_and_changes_nothing(attack):
    model = suited(attack, curved())
    images, labels = scene(3, 12, 10)
    labels = half_right(model, images, labels)
    labels[2] = 255  # an image without labels stays as it is
    region = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    result, shown = watched(attack, model, images, labels, region=region)
    assert len(shown) == attack.steps
    assert torch.equal(shown[-1], result)
    assert torch.equal(result, attack(model, images, labels, [1, 2, 3], region=region))
    for seen in shown:
        assert not seen.requires_grad
        assert size(attack, seen - images).max() <= radius(attack) + 1e-6
        assert seen.min() >= 0
        assert seen.max() <= 1
        outside = ~region[:, None] | (labels == 255).flatten(1).all(1).view(-1, 1, 1, 1)
        assert torch.equal(torch.where(outside, seen, 0), torch.where(outside, images, 0))


@pytest.mark.parametrize("preset", [bim, pgd, mi_fgsm, ni_fgsm, ti_fgsm, pi_fgsm, vmi_fgsm, svre])
def test_what_is_shown_is_what_fewer_steps_would_give(preset):
    """Of attacks whose steps do not depend on how many there are."""
    few = {"samples": 2} if preset is vmi_fgsm else {}
    whole = preset(steps=5, step_size=0.01, **few)
    model = suited(whole, curved())
    images, labels = scene(3, 12, 10)
    _, shown = watched(whole, model, images, labels)
    for steps in (1, 3, 4):
        assert torch.equal(
            shown[steps - 1], preset(steps=steps, step_size=0.01, **few)(model, images, labels, [1, 2, 3])
        )


def test_apgd_shows_its_best_point_so_far_inside_the_budget():
    model = curved()
    images, labels = scene(3, 16, 14)
    labels = half_right(model, images, labels)
    # One ball: never worse than before. In larger balls the best point is outside of the budget and is brought back.
    for attack in (apgd(steps=12), apgd(steps=12, radii=[2.0, 1.0], shares=[0.5, 0.5])):
        result, shown = watched(attack, model, images, labels)
        assert torch.equal(shown[-1], result)
        assert size(attack, torch.stack(shown).flatten(0, 1) - images.repeat(12, 1, 1, 1)).max() <= PIXELS + 1e-9
        first = 0 if len(attack.radii) == 1 else 6
        left = torch.stack([Prediction(model(seen), labels).unfooled.flatten(1).sum(1) for seen in shown[first:]])
        assert (left.diff(dim=0) <= 0).all()
        assert (left[0] > left[-1]).any()


@pytest.mark.parametrize("attack", [NoAttack(), dag(), sea(), PerWindow(pgd(), Windows(8))], ids=lambda one: one.name)
def test_attacks_without_images_after_a_step(attack):
    images, labels = scene(1, 12, 10)
    reason = "set model.windows.attack=image" if isinstance(attack, PerWindow) else "cannot be watched step by step"
    with pytest.raises(ValueError, match=f"^{attack.name} .*{reason}"):
        attack(curved(), images, labels, watch=print)

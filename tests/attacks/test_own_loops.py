"""What every attack promises, for those with a loop of their own and with an ensemble as source."""

import json

import pytest
import torch

from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.loops.alma_prox import ALMAProx
from lightning_attack.attacks.loops.apgd import APGD
from lightning_attack.attacks.loops.dag import DAG
from lightning_attack.attacks.loops.patch_wise import PatchWise
from lightning_attack.attacks.loops.svre import SVRE
from lightning_attack.attacks.norms import L2
from lightning_attack.attacks.objectives.base import CrossEntropy, SegPGD
from lightning_attack.attacks.wrappers.worst_case import WorstCase
from tests.attacks.toys import (
    BALL,
    CLASSES,
    STEP,
    Together,
    curved,
    half_right,
    pgd,
    scene,
    two,
)

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

"""Attacks with a loop of their own on an ensemble, toward labels and in a region; the rest is in test_contract.py."""

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
from tests.attacks.toys import BALL, STEP, half_right, pgd, scene, two

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


def length(attack, change):
    norm = getattr(attack, "norm", BALL)
    return norm.size(change.double())


def radius(attack):
    return attack.norm.eps if hasattr(attack, "norm") else 1.0


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(("shape", "dtype"), [((1, 1, 1), torch.float32), ((2, 33, 21), torch.float64)])
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

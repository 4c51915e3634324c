"""`PatchWise` against a loop with explicit neighbours and against torchattacks."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks.loops.patch_wise import PatchWise
from lightning_attack.attacks.norms import L2
from lightning_attack.attacks.objectives.base import CrossEntropy
from tests.attacks.toys import (
    BALL,
    PIXELS,
    STEP,
    STEPS,
    curved,
    half_right,
    pgd,
    scene,
    share_of_differences,
)


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

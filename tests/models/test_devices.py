"""Targets behind defences on a pretended device: the same classes as on the host, and nothing on the wrong one."""

import copy

import pytest
import torch
from torch import nn

from lightning_attack.engine.fixed_order import OPERATORS
from lightning_attack.models import Defended, SegmentationModel, Smoothed
from lightning_attack.models.defences import (
    JPEG,
    BitDepth,
    CropAndScale,
    Defence,
    FlipAndScales,
    GaussianFilter,
    MedianFilter,
    Purifier,
    ResizeAndPad,
)
from lightning_attack.models.denoising import TotalVariation
from lightning_attack.models.wrapper import decide
from tests.attacks.pretended_device import DEVICE, PretendedDevice
from tests.attacks.toys import curved, scene

DEFENCES = [
    lambda: [JPEG(50)],
    lambda: [BitDepth(3)],
    lambda: [MedianFilter(3)],
    lambda: [GaussianFilter(0.7)],
    lambda: [ResizeAndPad(0.8)],
    lambda: [CropAndScale(0.6)],
    lambda: [FlipAndScales([0.5, 1.0])],
    lambda: [Purifier(nn.AvgPool2d(3, 1, 1))],
    lambda: [TotalVariation(0.1, steps=5)],
    lambda: [ResizeAndPad(0.9), CropAndScale(0.8), MedianFilter(5), FlipAndScales([1.0])],
]


def network():
    inner = copy.deepcopy(curved(torch.float32))  # it will be moved
    return SegmentationModel(inner, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), stride=8, name="toy")


TARGETS = [lambda make=make: Defended(network(), make()) for make in DEFENCES]
TARGETS += [lambda: Smoothed(network(), sigma=0.05, n0=3, n=40, alpha=0.1, batch=16)]


def test_every_defence_is_here():
    ours = {kind for kind in Defence.__subclasses__() if kind.__module__.startswith("lightning_attack.")}
    assert {type(defence) for make in DEFENCES for defence in make()} == ours


@pytest.mark.parametrize("make", TARGETS, ids=lambda make: make().name)
def test_defended_targets_on_a_device(make):
    images, _ = scene(2, 16, 20, dtype=torch.float32)
    images = (images * 255).round() / 255
    with torch.no_grad():
        target = make().eval()
        expected = decide(target, target(images))
        with PretendedDevice() as device:
            target = make().eval().to(DEVICE)
            found = decide(target, target(images.to(DEVICE)))
    assert torch.equal(found.host, expected)
    assert len(expected.unique()) > 1
    assert device.refused <= set(OPERATORS), "not exact to the last bit on CUDA"

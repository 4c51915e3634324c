"""The networks of the benchmarks, and what they are shown."""

from __future__ import annotations

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from lightning_attack.models import SegmentationModel, TrainedModel, freeze


def _calibrated(build: Callable[[], nn.Module], classes: int) -> SegmentationModel:
    """Random weights, with batch normalisations that have seen what they normalise."""
    torch.manual_seed(0)
    network = build().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 3, 128, 128))
    return SegmentationModel(network, classes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), stride=32)


NETWORKS: dict[str, tuple[Callable[[], SegmentationModel], int, tuple[int, int, int]]] = {
    "unet-resnet18": (
        lambda: _calibrated(lambda: smp.Unet("resnet18", encoder_weights=None, classes=11), 11), 11, (4, 256, 256)
    ),
    "deeplabv3plus-resnet50": (
        lambda: _calibrated(lambda: smp.DeepLabV3Plus("resnet50", encoder_weights=None, classes=21), 21), 21,
        (2, 512, 512),
    ),
    "fpn-mobilenet_v2": (
        lambda: _calibrated(lambda: smp.FPN("mobilenet_v2", encoder_weights=None, classes=19), 19), 19, (1, 512, 1024)
    ),
    "embedded-deeplabv3plus": (lambda: TrainedModel("embedded:scenes_deeplabv3plus"), 0, (8, 128, 128)),
}  # fmt: skip
"""Name -> how it is built, its number of classes (0: read off its first output), batch size, height and width."""


def build(name: str, size: tuple[int, int, int] | None = None) -> tuple[SegmentationModel, Tensor, Tensor]:
    """The frozen network, images in [0, 1] of its own size or another, and labels; the same in every process."""
    make, classes, own = NETWORKS[name]
    batch, height, width = size or own
    network = freeze(make())
    draws = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 3, height, width, generator=draws)
    with torch.no_grad():
        classes = classes or network(images[:1]).shape[1]
    labels = torch.randint(classes, (batch, height, width), generator=draws)
    labels[:, : height // 16] = 255
    return network, images, labels


def convolution_operations(network: nn.Module, images: Tensor) -> float:
    """Floating point operations of a network's convolutions, forward."""
    total = 0.0

    def count(module: nn.Conv2d, _: object, output: Tensor) -> None:
        nonlocal total
        total += 2.0 * output[:, 0].numel() * module.weight.numel()

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        network(images[:1])
    for hook in hooks:
        hook.remove()
    return total * len(images)

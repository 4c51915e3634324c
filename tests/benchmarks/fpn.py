"""An FPN on an encoder that smp does not have, for networks of `search_transfer.py`."""

from __future__ import annotations

from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from torch import Tensor, nn


class Encoder(nn.Module):
    """A stem and pooling with strides of 2, and stages of which all but the first have such strides."""

    channels: tuple[int, ...]
    """Of the features, the images first."""
    stem: nn.Module
    pool: nn.Module
    stages: nn.ModuleList

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features that smp's decoders take: the images, the stem's, and those of each stage."""
        features = [images, self.stem(images)]
        values = self.pool(features[-1])
        for stage in self.stages:
            values = stage(values)
            features.append(values)
        return features


class FPN(nn.Module):
    """The network.

    Args:
        encoder: gives features of strides 1 to 32.
        num_classes: number of classes.
    """

    def __init__(self, encoder: Encoder, num_classes: int = 21) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = FPNDecoder(list(encoder.channels), 5, 128, 64)
        self.head = SegmentationHead(64, num_classes, kernel_size=1, upsampling=4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder(self.encoder(images)))
        return logits

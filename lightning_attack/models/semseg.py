"""PSPNet and DeepLabV3 by the tensor names of hszhao/semseg and of the repositories that grew from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from lightning_attack.models.initial import Initial
from lightning_attack.models.weights import load_weights, read_weights, weights_path
from lightning_attack.models.wrapper import ModelError, SegmentationModel

Arch = Literal["pspnet", "deeplabv3"]
Backbone = Literal["resnet50", "resnet101"]
_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
_BINS, _RATES = (1, 2, 3, 6), (6, 12, 18)
# What a file may hold beside the network: heads that only its training used, and the weights of its loss.
_UNUSED = ("cls2.", "mask1.", "criterion.", "criterion_mask.")


class SemSegModel(SegmentationModel):
    """PSPNet or DeepLabV3 on a dilated ResNet, for weights of hszhao/semseg and DDC-AT.

    Sources: H. Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, arXiv 1612.01105 (weights:
    github.com/hszhao/semseg); L.-C. Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
    arXiv 1706.05587, in the form and with the names (`aspp.convs.0.0.weight`, ...) of X. Xu et al., "Dynamic
    Divide-and-Conquer Adversarial Training for Robust Semantic Segmentation", ICCV 2021, arXiv 2003.06555 (weights:
    github.com/dvlab-research/Robust-Semantic-Segmentation); semseg itself has no DeepLabV3. Networks that were trained
    with DDC-AT predict with the first of their heads, `cls1`, which is taken as `cls`.

    The ResNet has three 3x3 convolutions in the place of the 7x7 one and stride 8: dilation 2 and 4 in the last two
    stages. Images of any size are padded to 8k + 1, as these networks were trained, and logits are cropped again.

    Args:
        arch: `pspnet` or `deeplabv3`.
        backbone: `resnet50` or `resnet101`.
        weights: file with the trained weights, `module.` before the names or not; None leaves the initial values.
        num_classes: number of classes.
        mean: mean of each colour in [0, 1]; the default is ImageNet's, which semseg uses.
        std: standard deviation of each colour; the default is ImageNet's.
        aux: build the auxiliary head on the third stage too, for training; a file must then hold it. Without, that of
            a file is left out.
        width: channels of the first convolution: 64 in all published networks, less for experiments.
        name: name in tables and folders; the default is `arch_backbone`.
        weights_key: key in the file under which the weights are, such as `state_dict_ema`; None: the usual ones.

    Raises:
        ModelError: an argument is unknown, or the weights do not fit.

    Example:
        >>> model = SemSegModel("pspnet", width=4, num_classes=19).eval()
        >>> model.name, model(torch.rand(1, 3, 30, 41)).shape
        ('pspnet_resnet50', torch.Size([1, 19, 30, 41]))
    """

    _classes_last = False

    def __init__(
        self,
        arch: Arch = "pspnet",
        backbone: Backbone = "resnet50",
        weights: str | None = None,
        num_classes: int = 21,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        aux: bool = False,
        width: int = 64,
        name: str | None = None,
        weights_key: str | None = None,
    ) -> None:
        if arch not in get_args(Arch) or backbone not in get_args(Backbone):
            raise ModelError(
                f"arch='{arch}' must be one of {', '.join(get_args(Arch))}, backbone='{backbone}' one of "
                f"{', '.join(get_args(Backbone))}"
            )
        if num_classes < 1 or width < 1:
            raise ModelError(f"num_classes={num_classes} and width={width}: must be 1 or more")
        path = weights_path(weights) if weights else None
        network = _SemSeg(arch, _BLOCKS[backbone], num_classes, width, aux)
        if path:
            heads = ("aux.", "aux_cls1.") if not aux else ()
            load_weights(_named_as_in(path, network, weights_key), path, (*_UNUSED, *heads), weights_key, "aux")
        super().__init__(network, num_classes, mean, std, name=name or f"{arch}_{backbone}")
        if not path:
            self._initial = Initial(network)


def _named_as_in(path: Path, network: nn.Module, key: str | None) -> nn.Module:
    """The network, or if the file is of DDC-AT the same modules by its names for the heads."""
    if not any("cls1." in tensor for tensor in read_weights(path, key)):
        return network
    other = nn.Module()
    for name, module in network.named_children():
        other.add_module({"cls": "cls1", "aux": "aux_cls1"}.get(name, name), module)
    return other


class _SemSeg(nn.Module):
    """The network on normalised images of any size; its modules have the names of the weights files."""

    def __init__(self, arch: str, blocks: Sequence[int], classes: int, width: int, aux: bool) -> None:
        super().__init__()
        stem = [*_unit(3, width, 3, stride=2), *_unit(width, width, 3), *_unit(width, 2 * width, 3)]
        self.layer0 = nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1))
        self.layer1 = _stage(2 * width, width, blocks[0])
        self.layer2 = _stage(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, blocks[2], dilation=2)
        self.layer4 = _stage(16 * width, 8 * width, blocks[3], dilation=4)
        features = 32 * width
        self.ppm = _PyramidPooling(features) if arch == "pspnet" else None
        self.aspp = _AtrousPyramid(features, 4 * width) if arch == "deeplabv3" else None
        # PSPNet's heads are 3x3 convolutions, DeepLabV3's are 1x1.
        if arch == "pspnet":
            self.cls = _head(2 * features, 8 * width, classes, 3)
        else:
            self.cls = _head((len(_RATES) + 2) * 4 * width, 4 * width, classes, 1)
        self.aux = _head(16 * width, 4 * width, classes, 3 if arch == "pspnet" else 1) if aux else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        # On 8k + 1 pixels the corners of the image and of the k + 1 features coincide, as in training.
        x = F.pad(x, (0, -(width - 1) % 8, 0, -(height - 1) % 8))
        middle = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        features = self.layer4(middle)
        pyramid = self.ppm or self.aspp
        logits = {"out": self.cls(pyramid(features))}  # type: ignore[misc]
        if self.aux is not None and self.training:
            logits["aux"] = self.aux(middle)
        return {name: _resize(small, x)[..., :height, :width] for name, small in logits.items()}


class _PyramidPooling(nn.Module):
    """Features beside their means over 1x1, 2x2, 3x3 and 6x6 regions (1612.01105, section 3.2)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        outputs = inputs // len(_BINS)
        self.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), *_unit(inputs, outputs, 1)) for size in _BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] + [_resize(branch(x), x) for branch in self.features], dim=1)


class _AtrousPyramid(nn.Module):
    """Convolutions of several dilations beside each other, and the image's mean (1706.05587, section 3.3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        branches = [_unit(inputs, outputs, 1)]
        branches += [_unit(inputs, outputs, 3, dilation=rate) for rate in _RATES]
        branches += [[nn.AdaptiveAvgPool2d(1), *_unit(inputs, outputs, 1)]]
        self.convs = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x: Tensor) -> Tensor:
        # The mean is one number per channel; resizing repeats it.
        return torch.cat([_resize(branch(x), x) for branch in self.convs], dim=1)


def _resize(small: Tensor, like: Tensor) -> Tensor:
    """Bilinear, corners on corners, to the height and width of `like`; the same numbers if they have them already."""
    return F.interpolate(small, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _stage(inputs: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Bottlenecks that return 4 `width` channels; the stride stands in the 3x3 convolution."""
    shortcut = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
    first = Bottleneck(inputs, width, stride, shortcut, dilation=dilation)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, dilation=dilation) for _ in range(blocks - 1)))


def _head(inputs: int, hidden: int, classes: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*_unit(inputs, hidden, kernel), nn.Dropout2d(0.1), nn.Conv2d(hidden, classes, 1))

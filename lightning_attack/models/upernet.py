"""UPerNet on a ConvNeXt by the tensor names of the robust networks of Croce et al."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.models.initial import Initial
from lightning_attack.models.weights import load_weights, weights_path
from lightning_attack.models.wrapper import ModelError, SegmentationModel

Backbone = Literal["convnext_tiny", "convnext_small"]
_BLOCKS = {"convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3)}
_BINS = (1, 2, 3, 6)


class RobustUPerNet(SegmentationModel):
    """UPerNet on a ConvNeXt with a convolutional stem, for the weights of PIR-AT and of its clean counterparts.

    Source: F. Croce, N. D. Singh, M. Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic
    Segmentation Models", ECCV 2024, arXiv 2306.12941 (weights for PASCAL VOC and ADE20K:
    github.com/nmndeep/Robust-Segmentation, `UperNet-ConvNext-T_CVST` and `-S_CVST`). They start from an ImageNet
    backbone that is robust already (pre-trained ImageNet robust, PIR) and go on with adversarial training. Names and
    shapes of the tensors are those of that repository's code (`backbone.downsample_layers.0.stem.0.weight`,
    `decode_head.psp_modules.0.1.conv.weight`, ...).

    The VOC networks have 21 classes, background among them; of others, the error about a classifier that does not fit
    says how many they have. The repository's training feeds images in [0, 1] as they are, which is the default here;
    some of its older scripts normalise by ImageNet's mean and std. Compare the clean mIoU with the published one.

    Args:
        backbone: `convnext_tiny` or `convnext_small`.
        weights: file with the trained weights, `module.` before the names or not; None leaves the initial values.
        num_classes: number of classes.
        mean: mean of each colour in [0, 1].
        std: standard deviation of each colour.
        width: channels of the first stage: 96 in all published networks, less for experiments (a multiple of 6).
        name: name in tables and folders; the default is `upernet_backbone`.
        weights_key: key in the file under which the weights are; None: the usual ones.

    Raises:
        ModelError: an argument is unknown, or the weights do not fit.

    Example:
        >>> model = RobustUPerNet("convnext_tiny", width=6, num_classes=5).eval()
        >>> model.name, model(torch.rand(1, 3, 40, 70)).shape
        ('upernet_convnext_tiny', torch.Size([1, 5, 40, 70]))
    """

    _classes_last = False

    def __init__(
        self,
        backbone: Backbone = "convnext_tiny",
        weights: str | None = None,
        num_classes: int = 21,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        width: int = 96,
        name: str | None = None,
        weights_key: str | None = None,
    ) -> None:
        if backbone not in get_args(Backbone):
            raise ModelError(f"backbone='{backbone}' must be one of {', '.join(get_args(Backbone))}")
        if num_classes < 1 or width < 6 or width % 6:
            raise ModelError(f"num_classes={num_classes} must be 1 or more, width={width} a multiple of 6")
        path = weights_path(weights) if weights else None
        network = _UPerNet(_BLOCKS[backbone], width, num_classes)
        if path:
            # The auxiliary head helps training only.
            load_weights(network, path, ("auxiliary_head.",), weights_key)
        super().__init__(network, num_classes, mean, std, name=name or f"upernet_{backbone}")
        if not path:
            self._initial = Initial(network)


class _UPerNet(nn.Module):
    """The network; its modules have the names of the weights files."""

    def __init__(self, blocks: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(4)]
        self.backbone = _ConvNeXt(blocks, widths)
        self.decode_head = _Head(widths, 16 * width // 3, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decode_head(self.backbone(x))
        return logits


class _ConvNeXt(nn.Module):
    """Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545; two convolutions in place of its stem."""

    def __init__(self, blocks: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList([_Stem(widths[0])])
        for before, after in pairwise(widths):
            self.downsample_layers.append(nn.Sequential(_ChannelNorm(before), nn.Conv2d(before, after, 2, stride=2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(count))) for count, width in zip(blocks, widths, strict=True)
        )
        for stage, width in enumerate(widths):
            self.add_module(f"norm{stage}", _ChannelNorm(width))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for number, (smaller, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(smaller(x))
            found.append(self.get_submodule(f"norm{number}")(x))
        return found


class _Stem(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        first = [nn.Conv2d(3, half, 3, stride=2, padding=1), _ChannelNorm(half), nn.GELU()]
        second = [nn.Conv2d(half, width, 3, stride=2, padding=1), _ChannelNorm(width), nn.GELU()]
        self.stem = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.stem(x)
        return found


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        inner = self.gamma * self.pwconv2(self.act(self.pwconv1(inner)))
        return x + inner.permute(0, 3, 1, 2)


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Head(nn.Module):
    """T. Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018, arXiv 1807.10221."""

    def __init__(self, widths: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), _Unit(widths[-1], channels, 1)) for size in _BINS
        )
        self.bottleneck = _Unit(widths[-1] + len(_BINS) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(_Unit(width, channels, 1) for width in widths[:-1])
        self.fpn_convs = nn.ModuleList(_Unit(channels, channels, 3) for _ in widths[:-1])
        self.fpn_bottleneck = _Unit(len(widths) * channels, channels, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        last = features[-1]
        pyramid = [last, *(_resize(pooled(last), last) for pooled in self.psp_modules)]
        levels = [lateral(one) for lateral, one in zip(self.lateral_convs, features, strict=False)]
        levels.append(self.bottleneck(torch.cat(pyramid, 1)))
        for number in range(len(levels) - 1, 0, -1):
            levels[number - 1] = levels[number - 1] + _resize(levels[number], levels[number - 1])
        levels[:-1] = [convolution(one) for convolution, one in zip(self.fpn_convs, levels, strict=False)]
        joined = torch.cat([_resize(one, levels[0]) for one in levels], 1)
        logits: Tensor = self.classifier(self.fpn_bottleneck(joined))
        return logits


class _Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.batch_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.batch_norm(self.conv(x)))


def _resize(small: Tensor, like: Tensor) -> Tensor:
    """Bilinear, pixels' edges on edges, to the height and width of `like`."""
    return F.interpolate(small, size=like.shape[-2:], mode="bilinear", align_corners=False)

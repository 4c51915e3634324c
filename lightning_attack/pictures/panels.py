"""A strip of panels: photos and colored label maps side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.common.labels import ABSTAINED, class_colour
from lightning_attack.pictures.bytes import to_bytes


def side_by_side(photos: Sequence[Tensor], labels: Sequence[Tensor], width: int) -> Tensor:
    """Photos (3, H, W) in [0, 1], then label maps (H, W) in VOC's colours: (3, h, n * w) uint8 on the CPU.

    Panels wider than `width` are shrunk to it.

    Example:
        >>> side_by_side([torch.ones(3, 1, 1)], [torch.tensor([[1]])], width=9).tolist()
        [[[255, 128]], [[255, 0]], [[255, 0]]]
    """
    maps = class_colours()[torch.stack(list(labels)).cpu()].permute(0, 3, 1, 2)
    panels = torch.cat([to_bytes(torch.stack(list(photos))).cpu(), maps])
    height, own = panels.shape[-2:]
    if own > width:
        size = max(1, round(height * width / own)), width
        panels = F.interpolate(panels.float(), size=size, mode="nearest-exact").to(torch.uint8)
    return torch.cat(tuple(panels), dim=-1)


def class_colours() -> Tensor:
    """PASCAL VOC's color of each of 256 classes and, in the last row, of `ABSTAINED`, (257, 3) uint8.

    See `common.labels.class_colour`.

    Example:
        >>> class_colours()[[0, 1, 2, 255, -1]].tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [255, 255, 255], [255, 0, 255]]
    """
    return torch.tensor([class_colour(number) for number in (*range(256), ABSTAINED)], dtype=torch.uint8)

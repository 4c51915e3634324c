"""`size_cost`: how what networks compute grows with the size of images, by counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from lightning_attack.models.acceleration import innermost
from lightning_attack.models.worth import work_of


class SizeCost(NamedTuple):
    """What an image costs: the values that networks compute for it, whatever its size and for each of its pixels.

    Example:
        >>> SizeCost(fixed=100, per_pixel=2).of(3, 4)
        124
    """

    fixed: float
    per_pixel: float

    def of(self, height: int, width: int) -> float:
        """Of an image of this size."""
        return self.fixed + self.per_pixel * height * width


def size_cost(passes: Iterable[tuple[nn.Module, float]], probe_size: tuple[int, int]) -> SizeCost:
    """Count what networks compute for images of two sizes; most grow with the pixels, those that resize do not.

    Args:
        passes: networks, and how many forward passes each makes for an image.
        probe_size: height and width of images that every network takes, see `work_of`.

    Returns:
        The cost; that of pixels alone if no network can be counted.

    Example:
        >>> from lightning_attack.models import SegmentationModel
        >>> network = SegmentationModel(nn.Conv2d(3, 8, 1), num_classes=8, mean=(0, 0, 0), std=(1, 1, 1))
        >>> size_cost([(network, 10)], (4, 4)) == SizeCost(0, 10 * (8 + 3 + 3))  # normalized, then convolved
        True
    """
    fixed = per_pixel = 0.0
    for part, count in [(part, count) for network, count in passes for part in innermost(network)]:
        work = work_of(part, probe_size)
        if work is not None:
            fixed += count * work.fixed
            per_pixel += count * work.values
    return SizeCost(fixed, per_pixel) if fixed or per_pixel else SizeCost(0, 1)

"""`Windows`: overlapping windows of one size that cover a photo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Unit = Literal["image", "window"]


@dataclass(frozen=True)
class Windows:
    """Overlapping windows of one size that cover a photo.

    Source: the protocol of PSPNet (H. Zhao et al., CVPR 2017, arXiv 1612.01105) and its followers. The windows lie
    ceil(size * stride) pixels apart; the last one of a row and of a column ends with the photo. A photo that is smaller
    than a window has one.

    Args:
        size: height and width of a window in pixels, or one number for both.
        stride: distance of neighbours as a share of the size, in (0, 1].
        attack: `image`: attacks see the photo as the networks do, through all windows at once; `window`: each window is
            attacked on its own, see `PerWindow`. It has no effect where nothing is attacked.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> Windows(6, 2 / 3).grid(6, 13)
        [(0, 0), (0, 4), (0, 7)]
        >>> Windows(6).grid(4, 5)
        [(0, 0)]
    """

    size: int | tuple[int, int]
    stride: float = 2 / 3
    attack: Unit = "image"

    def __post_init__(self) -> None:
        if self.attack not in get_args(Unit):
            raise ValueError(f"attack='{self.attack}' of windows must be one of {', '.join(get_args(Unit))}")
        if min(self.shape) < 1 or not 0 < self.stride <= 1:
            raise ValueError(f"size={self.size} of windows must be 1 or more, stride={self.stride} in (0, 1]")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a window."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def grid(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top and left of each window over a photo, row by row."""
        rows, columns = (self._starts(*lengths) for lengths in zip((height, width), self.shape, strict=True))
        return [(top, left) for top in rows for left in columns]

    def _starts(self, length: int, window: int) -> list[int]:
        beyond = max(0, length - window)
        step = math.ceil(window * self.stride)
        return [*range(0, beyond, step), beyond]

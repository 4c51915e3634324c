"""Input transform that turns, shifts, zooms and slants the image, in pixels. The logits are moved back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, each, unmoved
from lightning_attack.attacks.random import Draws


class RandomAffine(InputTransform):
    """Show the image turned, shifted, zoomed and slanted, on black or amid its mirror images.

        a point p of the image, in pixels from its centre, is shown at   z R(a) S p + t,   S = [[s, h], [0, 1 / s]]
        a ~ U(-degrees, degrees),   z ~ U(1 - scale, 1 + scale),   t ~ U(-translate, translate) of each side,
        s = (1 + slant)^U(-1, 1),   h ~ U(-slant, slant)

    Image and logits are sampled bilinearly. Pixels that leave the frame have no logits, nor have those at the image's
    border whose logits would be mixed with the logits of the surroundings.

    Args:
        degrees: largest angle, in [0, 180].
        translate: largest shift as a share of each side, in [0, 1].
        scale: largest relative change of size, in [0, 1); or the smallest and the largest zoom, both above 0, such as
            `[0.5, 1.2]`.
        undo: whether the logits are moved back.
        slant: how far the image is stretched one way at the cost of the other, and sheared; in [0, 1].
        border: what surrounds the image: `black`, or `mirror`, its reflection, whose gradient counts too.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> images = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
        >>> view = next(RandomAffine(degrees=30.0)(images, Draws([0])))
        >>> shown = view.undo(torch.ones(1, 1, 8, 8, dtype=torch.float64))
        >>> bool(shown[0, 0, 4, 4] > 0.99), bool(shown.min() < 0.1)         # the centre is shown, some corner is not
        (True, True)
    """

    spatial = True
    partial = True

    def __init__(
        self,
        degrees: float = 10.0,
        translate: float = 0.1,
        scale: float | Sequence[float] = 0.1,
        undo: bool = True,
        border: Literal["black", "mirror"] = "black",
        slant: float = 0.0,
    ) -> None:
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees={degrees}: must be between 0 and 180")
        if not 0 <= translate <= 1:
            raise ValueError(f"translate={translate}: must be between 0 and 1")
        if isinstance(scale, int | float):
            if not 0 <= scale < 1:
                raise ValueError(f"scale={scale}: must be 0 or more, below 1 (or two zooms, such as [0.5, 1.2])")
        elif len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(f"scale={scale}: must be a number, or the smallest and the largest zoom, above 0")
        if not 0 <= slant <= 1:
            raise ValueError(f"slant={slant}: must be between 0 and 1")
        if border not in ("black", "mirror"):
            raise ValueError(f"border='{border}': must be black or mirror")
        self.degrees, self.translate, self.undo, self.border = degrees, translate, undo, border
        self.scale = scale if isinstance(scale, int | float) else list(scale)
        self.slant = slant

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        height, width = images.shape[-2:]
        yield moved(images, self.moves(height, width, draws), self.undo, self.border == "mirror")

    def moves(self, height: int, width: int, draws: Draws) -> list[Move]:
        """How each image is moved."""
        names = ("angle", "zoom", "right", "down", "stretch", "shear")
        numbers = zip(*(draws.uniform_on_host(f"affine {name}") for name in names), strict=True)
        least, most = (1 - self.scale, 1 + self.scale) if isinstance(self.scale, int | float) else self.scale
        return [
            Move(
                math.radians(self.degrees * (2 * angle - 1)),
                least + (most - least) * zoom,
                self.translate * width * (2 * right - 1),
                self.translate * height * (2 * down - 1),
                (1 + self.slant) ** (2 * stretch - 1),
                self.slant * (2 * shear - 1),
            )
            for angle, zoom, right, down, stretch, shear in numbers
        ]


Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
"""x' and y' of a point, each as its coefficients of x, y and 1."""


class Move(NamedTuple):
    """A stretch and a shear, then a turn (in radians, from right to down), then a zoom, then a shift in pixels."""

    angle: float = 0.0
    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0
    stretch: float = 1.0
    shear: float = 0.0

    def to_view(self) -> Matrix:
        """Where a point of the image is shown."""
        cos, sin = self.zoom * math.cos(self.angle), self.zoom * math.sin(self.angle)
        s, h = self.stretch, self.shear
        return (s * cos, h * cos - sin / s, self.right), (s * sin, h * sin + cos / s, self.down)

    def to_image(self) -> Matrix:
        """Which point of the image a point of the view shows."""
        cos, sin = math.cos(self.angle) / self.zoom, math.sin(self.angle) / self.zoom
        s, h = self.stretch, self.shear
        rows = (cos / s + h * sin, sin / s - h * cos), (-s * sin, s * cos)
        first, second = ((a, b, -a * self.right - b * self.down) for a, b in rows)
        return first, second


def moved(images: Tensor, moves: Sequence[Move], undo: bool = True, mirrored: bool = False) -> View:
    """The view in which each image has been moved, on black or amid its mirror images.

    Pixels that leave the frame have no logits, nor have those at the border whose logits would be mixed with others.

    Args:
        images: (B, 3, H, W).
        moves: one for each image.
        undo: whether the logits are moved back.
        mirrored: whether mirror images surround the image.
    """
    to_image, to_view = [move.to_image() for move in moves], [move.to_view() for move in moves]
    around = _sample_each(torch.ones_like(images[:, :1]), to_image) < 0.99

    def back(logits: Tensor) -> Tensor:
        return _sample_each(logits.masked_fill(around, 0), to_view)

    return View(_sample_each(images, to_image, mirrored), back if undo else unmoved)


def _sample_each(batch: Tensor, matrices: Sequence[Matrix], mirrored: bool = False) -> Tensor:
    """`sample` of each image with its own matrix; at once where they have the same one."""
    if len({*matrices}) == 1:
        return sample(batch, matrices[0], mirrored)
    return each(partial(sample, mirrored=mirrored), batch, matrices)


def sample(batch: Tensor, matrix: Matrix, mirrored: bool = False) -> Tensor:
    """For each pixel what lies where the matrix sends it, in pixels from the centre; outside 0 or mirror images.

    The grid is made by hand: autocast would round the one of `F.affine_grid`.
    """
    height, width = batch.shape[-2:]
    kind = torch.promote_types(batch.dtype, torch.float32)
    x = torch.arange(width, dtype=kind, device=batch.device) - (width - 1) / 2
    y = (torch.arange(height, dtype=kind, device=batch.device) - (height - 1) / 2)[:, None]
    right, down = (a * x + b * y + c for a, b, c in matrix)
    grid = torch.stack([right * (2 / width), down * (2 / height)], dim=-1).expand(len(batch), -1, -1, -1)
    return F.grid_sample(
        batch.to(kind), grid, padding_mode="reflection" if mirrored else "zeros", align_corners=False
    ).to(batch.dtype)

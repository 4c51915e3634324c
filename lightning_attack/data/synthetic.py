"""`SyntheticScenes`: labelled pictures drawn on the fly, so that everything runs without a download."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.data.base import Scene, SegmentationDataset

Field = np.ndarray


def _disk(u: Field, v: Field) -> Field:
    return u**2 + v**2 < 1


def _square(u: Field, v: Field) -> Field:
    return np.maximum(abs(u), abs(v)) < 0.85


def _triangle(u: Field, v: Field) -> Field:
    return (v < 0.6) & (v > 1.9 * abs(u) - 1.0)


def _ring(u: Field, v: Field) -> Field:
    radius = u**2 + v**2
    return (radius < 1) & (radius > 0.3)


def _cross(u: Field, v: Field) -> Field:
    return (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 1)


def _star(u: Field, v: Field) -> Field:
    return np.hypot(u, v) < 0.65 + 0.35 * np.cos(5 * np.arctan2(v, u))


def _bar(u: Field, v: Field) -> Field:
    return (abs(u) < 1.2) & (abs(v) < 0.36)


_COLOURS = np.array(
    [
        (128, 128, 128),
        (190, 70, 60),
        (70, 160, 75),
        (65, 85, 190),
        (195, 175, 60),
        (165, 70, 175),
        (65, 175, 180),
        (215, 215, 215),
    ]
)  # of background (not used) and shapes

SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "disk": _disk,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
    "star": _star,
    "bar": _bar,
}


class SyntheticScenes(SegmentationDataset):
    """Overlapping, textured, shaded and noisy shapes; the class of a pixel is the kind of shape that it shows.

    Eight classes: background, disk, square, triangle, ring, cross, star, bar. Each kind of shape leans to a colour and
    a texture of its own, but these overlap widely, and the background takes any: colour helps, form decides, as on
    photos. Scene `index` depends on (seed, index) alone, so any rank, worker or run draws the same one.

    Args:
        count: number of scenes, at least 1.
        size: height and width in pixels, at least 16.
        seed: another seed, other scenes.
        shapes: smallest and largest number of shapes in a scene.
        spread: standard deviation of a shape's colour around that of its kind, in levels of 0..255.
        noise: standard deviation of the sensor noise, in levels of 0..255.
        border: width in pixels of the ignored (255) line around each shape, as in PASCAL VOC; 0 for none.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> scene = SyntheticScenes(count=2)[1]
        >>> scene.image.shape, scene.mask.shape, scene.name
        ((128, 128, 3), (128, 128), 'scene_000001')
    """

    classes = ("background", *SHAPES)
    labels_settled = drawn = True

    def __init__(
        self,
        count: int = 16,
        size: int = 128,
        seed: int = 0,
        shapes: tuple[int, int] = (3, 7),
        spread: float = 16.0,
        noise: float = 8.0,
        border: int = 1,
    ) -> None:
        if count < 1:
            raise ValueError(f"count={count}: SyntheticScenes needs at least 1 scene")
        if size < 16:
            raise ValueError(f"size={size}: scenes are at least 16 pixels wide")
        if not 0 <= shapes[0] <= shapes[1]:
            raise ValueError(f"shapes={tuple(shapes)}: give (smallest, largest) number of shapes, 0 or more")
        if min(spread, noise, border) < 0:
            raise ValueError(f"spread={spread}, noise={noise}, border={border}: must be 0 or more")
        self.count, self.size, self.seed = count, size, seed
        self.shapes, self.spread, self.noise, self.border = tuple(shapes), spread, noise, border

    def __len__(self) -> int:
        return self.count

    def photo_size(self, index: int) -> tuple[int, int]:
        return self.size, self.size

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng([self.seed, index])
        grid = np.linspace(-1, 1, self.size, dtype=np.float32)
        x, y = grid[None, :], grid[:, None]

        image = _surface(rng, x, y, rng.uniform(40, 215, 3), kind=int(rng.integers(4)))
        mask = np.zeros((self.size, self.size), np.uint8)
        for _ in range(rng.integers(self.shapes[0], self.shapes[1] + 1)):
            label = int(rng.integers(1, len(self.classes)))
            window, u, v, scale = self._pose(rng, grid)
            inside = SHAPES[self.classes[label]](u, v)
            if self.border:
                mask[window][_dilate(inside, self.border)] = IGNORE_INDEX
            mask[window][inside] = label
            colour = np.clip(rng.normal(_COLOURS[label], self.spread), 30, 225)
            kind = label % 4 if rng.uniform() < 0.5 else int(rng.integers(4))
            surface = _surface(rng, u, v, colour, kind, scale) * _shading(rng, u, v)[..., None]
            image[window][inside] = surface[inside]
        noise = rng.standard_normal(image.shape, dtype=np.float32) * self.noise
        image = image * _shading(rng, x, y)[..., None] + noise
        return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, f"scene_{index:06d}")

    def _pose(self, rng: np.random.Generator, grid: Field) -> tuple[tuple[slice, slice], Field, Field, float]:
        """A place for a shape: the window of the scene that holds it, coordinates in it, and the shape's scale.

        The coordinates are shifted, turned, scaled and squeezed, so that the shape fills about [-1, 1] of them.
        """
        cx, cy = rng.uniform(-0.9, 0.9, 2)
        angle, scale, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.6), rng.uniform(0.85, 1.18)
        reach = 1.7 * scale  # of a bar's corner, squeezed, with room for the border
        columns, rows = (slice(*np.searchsorted(grid, (c - reach, c + reach))) for c in (cx, cy))
        x, y = grid[None, columns] - np.float32(cx), grid[rows, None] - np.float32(cy)
        cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
        u, v = (cos * x + sin * y) * np.float32(squeeze), (cos * y - sin * x) / np.float32(squeeze)
        return (rows, columns), u, v, scale


def _surface(rng: np.random.Generator, u: Field, v: Field, colour: Field, kind: int, scale: float = 1.0) -> Field:
    """A colour with nothing (kind 0), stripes, checks or blotches (3) on it, in 0..255, (H, W, 3)."""
    contrast = rng.uniform(-45, 45, 3)
    angle, phase, frequency = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(8, 30) * scale
    cos, sin = np.float32(frequency * np.cos(angle)), np.float32(frequency * np.sin(angle))
    first = np.cos(cos * u + sin * v + np.float32(phase))
    second = np.cos(cos * v - sin * u + np.float32(phase)) if kind > 1 else first
    pattern = (0 * first, np.sign(first), np.sign(first * second), (first + second) / 2)[kind]
    return colour.astype(np.float32) + pattern[..., None] * contrast.astype(np.float32)


def _shading(rng: np.random.Generator, u: Field, v: Field) -> Field:
    """Light that falls off in one direction, about 0.7..1.3."""
    angle = rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0, 0.3)
    cos, sin = np.float32(strength * np.cos(angle)), np.float32(strength * np.sin(angle))
    return 1 + np.clip(cos * u + sin * v, -0.3, 0.3)


def _dilate(inside: Field, pixels: int) -> Field:
    """Grow a region by `pixels` in the four directions."""
    grown = inside
    for _ in range(pixels):
        padded = np.pad(grown, 1)
        grown = grown | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown

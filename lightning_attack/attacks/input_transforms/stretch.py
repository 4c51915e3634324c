"""Input transform that stretches and shrinks the rows and columns of an image, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, check_count, each, resize, unmoved
from lightning_attack.attacks.random import Draws


class BlockStretch(InputTransform):
    """Cut the image into blocks, and make some larger at the cost of others; the layout stays.

    After BSS, "Block Stretch and Shrink", arXiv 2511.17688, of which we know the abstract only; the cuts are ours.

        each side is cut at `blocks` - 1 places around i / blocks, moved by U(-strength, strength) / (2 blocks) of it,
        and shown with other cuts, drawn likewise; what lies between two cuts is resized (bilinear)

    Rows and columns that are cut stay rows and columns, and no pixel leaves the frame: the logits of each block are
    resized back to where it was, so each pixel has its own.

    Args:
        blocks: pieces of each side, 1 or more. 1 is the image itself. A side of fewer pixels has a piece for each.
        strength: how far cuts move, in [0, 1]: with 1 a block's side may shrink to nothing or double. 0 is the image
            itself.
        undo: whether the logits are moved back.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image = torch.arange(6.0).expand(1, 1, 2, 6)
        >>> view = next(BlockStretch(blocks=2, strength=0.9)(image, Draws([1])))
        >>> view.images.shape, bool((view.images == image).all())
        (torch.Size([1, 1, 2, 6]), False)
        >>> torch.equal(view.undo(torch.ones(1, 1, 2, 6)), torch.ones(1, 1, 2, 6))
        True
    """

    spatial = True

    def __init__(self, blocks: int = 3, strength: float = 0.6, undo: bool = True) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength}: must be between 0 and 1")
        self.blocks, self.strength, self.undo = check_count("blocks", blocks), strength, undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        down, right = (
            self.stretches(length, draws, name) for length, name in zip(images.shape[-2:], "hw", strict=True)
        )
        both = list(zip(down, right, strict=True))

        def show(image: Tensor, stretch: tuple[Stretch, Stretch]) -> Tensor:
            return stretch[1].show(stretch[0].show(image, -2), -1)

        def back(logits: Tensor, stretch: tuple[Stretch, Stretch]) -> Tensor:
            return stretch[0].back(stretch[1].back(logits, -1), -2)

        yield View(each(show, images, both), (lambda logits: each(back, logits, both)) if self.undo else unmoved)

    def stretches(self, length: int, draws: Draws, side: str) -> list[Stretch]:
        """How one side of each image is stretched."""
        pieces = min(self.blocks, length)
        before, after = (
            [draws.uniform_on_host(f"stretch {side} {what}") for _ in range(pieces - 1)] for what in ("from", "to")
        )
        return [
            Stretch(*(self._sizes(length, pieces, [cut[row] for cut in cuts]) for cuts in (before, after)))
            for row in range(len(draws.seeds))
        ]

    def _sizes(self, length: int, pieces: int, numbers: list[float]) -> list[int]:
        """Sizes of the pieces of a side, each 1 or more."""
        edges = [0]
        for place, number in enumerate(numbers, 1):
            edge = round(length * (place + self.strength * (number - 0.5)) / pieces)
            edges.append(min(max(edge, edges[-1] + 1), length - pieces + place))
        return [end - start for start, end in pairwise([*edges, length])]


class Stretch(NamedTuple):
    """Sizes of the pieces of one side in the image, and in the view."""

    image: list[int]
    view: list[int]

    def show(self, image: Tensor, dim: int) -> Tensor:
        """The pieces in the view's sizes."""
        return _resized(image, self.image, self.view, dim)

    def back(self, logits: Tensor, dim: int) -> Tensor:
        """The pieces in the image's sizes."""
        return _resized(logits, self.view, self.image, dim)


def _resized(image: Tensor, old: list[int], new: list[int], dim: int) -> Tensor:
    """The pieces of one side in new sizes; unchanged where the sizes are the old ones."""
    if old == new:
        return image
    other = image.shape[-1 if dim == -2 else -2]
    sizes = [(size, other) if dim == -2 else (other, size) for size in new]
    return torch.cat([resize(piece, size) for piece, size in zip(image.split(old, dim), sizes, strict=True)], dim)

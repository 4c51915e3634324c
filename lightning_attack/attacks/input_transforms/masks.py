"""Input transform that hides one cell of the image after the other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, check_count
from lightning_attack.attacks.random import Draws


class MaskedBlocks(InputTransform):
    """Show the image once for each cell of a grid, with that cell black.

    Source: M. Fan, C. Chen, X. Liu, W. Guo, "MaskBlock: Transferable Adversarial Examples with Bayes Approach", 2022,
    arXiv 2208.06538.

        cell (i, j): rows H i / grid to H (i + 1) / grid, columns likewise;        grid * grid views

    In the view that hides them, labelled pixels have no logits: nothing of them is to be seen there. Departs from the
    released code, whose cells have 56 pixels (16 of them in its 224 x 224) and which is for one label for each image.

    Args:
        grid: cells of each side, 2 or more; the paper's is 4.

    Raises:
        ValueError: grid is below 2.

    Example:
        >>> views = MaskedBlocks(grid=2)(torch.ones(1, 1, 2, 2), Draws([0]))
        >>> [view.images.flatten().tolist() for view in views][:2]
        [[0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
    """

    partial = True

    def __init__(self, grid: int = 4) -> None:
        if check_count("grid", grid) < 2:
            raise ValueError(f"grid={grid}: must be 2 or more; 1 would hide the whole image")
        self.grid = grid

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        height, width = images.shape[-2:]
        for i, j in product(range(self.grid), repeat=2):
            hidden = torch.zeros_like(images[:1, :1], dtype=torch.bool)
            hidden[..., _part(height, i, self.grid), _part(width, j, self.grid)] = True
            yield View(images.masked_fill(hidden, 0), partial(_without, hidden))


def _without(hidden: Tensor, logits: Tensor) -> Tensor:
    return logits.masked_fill(hidden, 0)


def _part(side: int, number: int, parts: int) -> slice:
    """Pixels of one of several equal parts of a side."""
    return slice(side * number // parts, side * (number + 1) // parts)

"""Input transform that changes each block of the image in a way of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, check_count, each, unmoved
from lightning_attack.attacks.random import Draws
from lightning_attack.common.pixels import Pixels, zero_or_more


class StructureInvariance(InputTransform):
    """SIA: cut the image into blocks, and change each in one of seven ways; the blocks stay in their places.

    Source: X. Wang, Z. Zhang, J. Zhang, "Structure Invariant Transformation for better Adversarial Transferability",
    ICCV 2023, arXiv 2309.14700.

        `blocks` x `blocks` blocks of random size; in each of them one of: roll down, roll right, flip down, flip right,
        turn by 180 degrees, times U(0, 1), plus U(-noise, noise)

    The first five permute the pixels of a block, and the logits are put back exactly. The operators are those of a
    common port; the paper has blur and DCT, too. Departs from the port, which clips noisy blocks to [0, 1]: pixels
    there keep their gradient here. Cuts are drawn uniformly, so a block may be narrow or empty.

    Args:
        blocks: how many pieces each way, 1 or more; the paper's is 3.
        copies: number of views, 1 or more; the paper's is 20.
        noise: of [0, 1] pixels, 0 or more; a number or a fraction. The port's is its budget, 16/255; the default is the
            budget of this package.
        undo: whether the logits are put back.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image = torch.arange(6.0).view(1, 1, 2, 3)
        >>> view = next(StructureInvariance(blocks=1)(image, Draws([1])))       # flipped right
        >>> view.images[0, 0], torch.equal(view.undo(view.images), image)
        (tensor([[2., 1., 0.],
                [5., 4., 3.]]), True)
    """

    spatial = True

    def __init__(self, blocks: int = 3, copies: int = 1, noise: Pixels = "8/255", undo: bool = True) -> None:
        self.blocks, self.copies = check_count("blocks", blocks), check_count("copies", copies)
        self.noise, self.undo = zero_or_more(noise, "noise"), undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for _ in range(self.copies):
            yield self._view(images, draws)

    def _view(self, images: Tensor, draws: Draws) -> View:
        noise = draws.uniform("structure noise", images.shape[1:], -self.noise, self.noise).to(images.dtype)
        height, width = images.shape[-2:]
        grids = self.grids(height, width, draws)

        def show(image: Tensor, item: tuple[Grid, Tensor]) -> Tensor:
            grid, own = item
            noisy = image + own
            return grid.change(image, lambda block, way: way.show(block), noisy)

        def back(logits: Tensor, grid: Grid) -> Tensor:
            return grid.change(logits, lambda block, way: way.back(block))

        def undo(logits: Tensor) -> Tensor:
            return each(back, logits, grids)

        shown = each(show, images, list(zip(grids, noise.split(1), strict=True)))
        return View(shown, undo if self.undo else unmoved)

    def grids(self, height: int, width: int, draws: Draws) -> list[Grid]:
        """The blocks of each image, and what happens to them."""
        cuts = [
            [draws.uniform_on_host(f"structure {side}") for _ in range(self.blocks - 1)] for side in ("rows", "columns")
        ]
        numbers = [
            [draws.uniform_on_host(f"structure {what}") for what in ("way", "amount")] for _ in range(self.blocks**2)
        ]
        return [
            Grid(
                _sizes(height, [cut[row] for cut in cuts[0]]),
                _sizes(width, [cut[row] for cut in cuts[1]]),
                [Way(int(way[row] * len(_WAYS)), amount[row]) for way, amount in numbers],
            )
            for row in range(len(draws.seeds))
        ]


_WAYS = ("down", "right", "flip down", "flip right", "turn", "darken", "noise")


class Way(NamedTuple):
    """What happens to a block: one of seven ways, and how much."""

    number: int
    amount: float

    def show(self, block: Tensor) -> Tensor:
        """The block changed; noise is added elsewhere."""
        kind = _WAYS[self.number]
        return block * self.amount if kind == "darken" else self._moved(block, 1)

    def back(self, block: Tensor) -> Tensor:
        """The logits of a block where its pixels were."""
        return self._moved(block, -1)

    def _moved(self, block: Tensor, sign: int) -> Tensor:
        kind = _WAYS[self.number]
        if kind in ("down", "right"):
            dim = -2 if kind == "down" else -1
            return block.roll(sign * int(self.amount * block.shape[dim]), dim)
        dims = {"flip down": (-2,), "flip right": (-1,), "turn": (-2, -1)}.get(kind)
        return block if dims is None else block.flip(dims)


class Grid(NamedTuple):
    """Heights of the rows of blocks, widths of the columns, and what happens to each block, row by row."""

    heights: list[int]
    widths: list[int]
    ways: list[Way]

    def change(self, image: Tensor, how: Callable[[Tensor, Way], Tensor], noisy: Tensor | None = None) -> Tensor:
        """Each block as `how` says; those that are to be noisy are taken from `noisy`."""
        ways, rows = iter(self.ways), []
        sources = [(part.split(self.heights, -2)) for part in (image, image if noisy is None else noisy)]
        for plain, other in zip(*sources, strict=True):
            blocks = []
            for one, two in zip(plain.split(self.widths, -1), other.split(self.widths, -1), strict=True):
                way = next(ways)
                blocks.append(how(two if _WAYS[way.number] == "noise" else one, way))
            rows.append(torch.cat(blocks, -1))
        return torch.cat(rows, -2)


def _sizes(length: int, numbers: list[float]) -> list[int]:
    """Sizes of the pieces of a side that is cut where numbers in [0, 1) say."""
    edges = [0, *sorted(int(number * (length + 1)) for number in numbers), length]
    return [end - start for start, end in pairwise(edges)]

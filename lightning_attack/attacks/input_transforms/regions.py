"""Input transforms that cut the image up: shuffled blocks, and regions in foreign surroundings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.affine import Move, sample
from lightning_attack.attacks.input_transforms.base import InputTransform, View, check_count, each, unmoved
from lightning_attack.attacks.random import Draws


class BlockShuffle(InputTransform):
    """BSR: cut the image into blocks, turn them a little and shuffle them.

    Source: K. Wang et al., "Boosting Adversarial Transferability by Block Shuffle and Rotation", CVPR 2024,
    arXiv 2308.10299.

        `blocks` strips of random width, each turned by U(-degrees, degrees) about its centre, on black, and shuffled;
        each cut into `blocks` pieces of random height, shuffled

    With `degrees` 0 pixels are only permuted, and the logits are put back exactly. Otherwise image and logits are
    sampled bilinearly, and pixels that leave their strip have no logits.

    Departs from the common port, which uses 3 blocks, 24 degrees and 20 copies: the cuts are drawn uniformly, so a
    block may be narrow or empty; the first cuts are always the vertical ones; and each image has cuts and order of its
    own.

    Args:
        blocks: how many pieces each way, 1 or more. 1 is the image itself, but for the turn.
        copies: number of views, 1 or more.
        undo: whether the logits are put back.
        degrees: largest angle, in [0, 180]; the paper's is 24, 0 turns nothing.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image = torch.arange(6.0).view(1, 1, 2, 3)
        >>> view = next(BlockShuffle(blocks=2)(image, Draws([3])))
        >>> view.images[0, 0], torch.equal(view.undo(view.images), image)
        (tensor([[1., 2., 0.],
                [4., 5., 3.]]), True)
    """

    spatial = True

    def __init__(self, blocks: int = 3, copies: int = 1, undo: bool = True, degrees: float = 0.0) -> None:
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees={degrees}: must be between 0 and 180")
        self.blocks, self.copies, self.undo = check_count("blocks", blocks), check_count("copies", copies), undo
        self.degrees = degrees

    @property
    def partial(self) -> bool:
        return self.degrees > 0

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for _ in range(self.copies):
            yield self._view(images, draws)

    def _view(self, images: Tensor, draws: Draws) -> View:
        height, width = images.shape[-2:]
        columns = _cuts(width, self.blocks, draws, "block column")
        rows = [_cuts(height, self.blocks, draws, "block row") for _ in range(self.blocks)]
        turns = self._turns(len(images), draws)
        blocks = list(zip(columns, zip(*rows, strict=True), turns, strict=True))

        def show(image: Tensor, cuts: Blocks) -> Tensor:
            column, rows, turns = cuts
            strips = zip(image.split(column.sizes, -1), rows, turns, strict=True)
            return column.shuffle(torch.cat([row.shuffle(turn.show(strip), -2) for strip, row, turn in strips], -1), -1)

        def back(logits: Tensor, cuts: Blocks) -> Tensor:
            column, rows, turns = cuts
            strips = zip(column.restore(logits, -1).split(column.sizes, -1), rows, turns, strict=True)
            return torch.cat([turn.back(row.restore(strip, -2)) for strip, row, turn in strips], -1)

        def undo(logits: Tensor) -> Tensor:
            return each(back, logits, blocks)

        return View(each(show, images, blocks), undo if self.undo else unmoved)

    def _turns(self, images: int, draws: Draws) -> list[tuple[Turn, ...]]:
        """How the strips of each image are turned."""
        if self.degrees == 0:
            return [(Turn(0.0),) * self.blocks] * images
        numbers = [draws.uniform_on_host("block angle") for _ in range(self.blocks)]
        return [
            tuple(Turn(math.radians(self.degrees * (2 * number - 1))) for number in own)
            for own in zip(*numbers, strict=True)
        ]


class Turn(NamedTuple):
    """A turn of a strip about its centre, in radians from right to down."""

    angle: float

    def show(self, strip: Tensor) -> Tensor:
        """The strip turned, on black."""
        return sample(strip, Move(self.angle, 1.0, 0.0, 0.0).to_image()) if self._moves(strip) else strip

    def back(self, logits: Tensor) -> Tensor:
        """The logits turned back; 0 where the strip was not shown."""
        if not self._moves(logits):
            return logits
        black = self.show(torch.ones_like(logits[:, :1])) < 0.99
        return sample(logits.masked_fill(black, 0), Move(self.angle, 1.0, 0.0, 0.0).to_view())

    def _moves(self, strip: Tensor) -> bool:
        return self.angle != 0 and strip.numel() > 0


class Cut(NamedTuple):
    """Pieces along one side, and the order in which they are shown."""

    sizes: list[int]
    order: list[int]

    def shuffle(self, image: Tensor, dim: int) -> Tensor:
        """The pieces in their new order."""
        pieces = image.split(self.sizes, dim)
        return torch.cat([pieces[piece] for piece in self.order], dim)

    def restore(self, image: Tensor, dim: int) -> Tensor:
        """Undo `shuffle`."""
        shown = image.split([self.sizes[piece] for piece in self.order], dim)
        return torch.cat([shown[self.order.index(piece)] for piece in range(len(shown))], dim)


Blocks = tuple[Cut, tuple[Cut, ...], tuple[Turn, ...]]
"""How the columns of one image are cut, then the rows of each strip; and how each strip is turned."""


class LocalRegions(InputTransform):
    """Attack some cells of the image in foreign surroundings.

    Inspired by: "SegTrans", arXiv 2510.08922, of which we know the abstract only: it splits the input into local
    regions, remaps their content and keeps local semantics. This is **not** SegTrans; all below is ours.

        grid x grid cells; of each view a random share `keep` stays, and only its pixels count in the loss;
        all other cells show what lies a random number of cells further (cyclically), the same for all of them

    So kept cells are classified amid strange surroundings without black edges. The gradient reaches the other cells'
    sources too. Where cells differ in size by a pixel, a shown cell may be cut a pixel off. An image of fewer than
    `grid` rows or columns has a cell for each.

    Args:
        grid: cells each way, 1 or more.
        keep: share of cells that are kept, in (0, 1], rounded; at least one is.
        copies: number of views, 1 or more.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image = torch.arange(4.0).view(1, 1, 2, 2)
        >>> view = next(LocalRegions(grid=2, keep=0.5)(image, Draws([0])))
        >>> view.undo(torch.ones(1, 1, 2, 2))             # the lower two of the four cells are kept
        tensor([[[[0., 0.],
                  [1., 1.]]]])
        >>> view.images                                   # the others show their right or left neighbour
        tensor([[[[1., 0.],
                  [2., 3.]]]])
    """

    # Kept cells stay, but the others show pixels of elsewhere.
    spatial = True
    partial = True

    def __init__(self, grid: int = 4, keep: float = 0.5, copies: int = 1) -> None:
        if not 0 < keep <= 1:
            raise ValueError(f"keep={keep}: must be above 0, at most 1")
        self.grid, self.keep, self.copies = check_count("grid", grid), keep, check_count("copies", copies)

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for _ in range(self.copies):
            yield self._view(images, draws)

    def _view(self, images: Tensor, draws: Draws) -> View:
        height, width = images.shape[-2:]
        rows, columns = min(self.grid, height), min(self.grid, width)
        cells = rows * columns
        ranks = draws.uniform("region keep", (cells,)).argsort(dim=1, stable=True).argsort(dim=1)
        kept = (ranks < max(1, round(self.keep * cells))).view(-1, 1, rows, columns)
        row, column = (
            torch.arange(length, device=images.device) * count // length
            for length, count in ((height, rows), (width, columns))
        )
        mask = kept[:, :, row][..., column]

        def strange(image: Tensor, number: float) -> Tensor:
            down, right = divmod(1 + int(number * (cells - 1)), columns)
            return image.roll((-(down * height // rows), -(right * width // columns)), (-2, -1))

        def undo(logits: Tensor) -> Tensor:
            return logits.masked_fill(~mask, 0)

        others = each(strange, images, draws.uniform_on_host("region shift"))
        return View(torch.where(mask, images, others), undo)


def _cuts(length: int, pieces: int, draws: Draws, purpose: str) -> list[Cut]:
    """Random pieces of a side, for each image."""
    places, keys = (
        zip(*(draws.uniform_on_host(f"{purpose} {what}") for _ in range(pieces)), strict=True)
        for what in ("place", "order")
    )
    cuts = []
    for place, key in zip(places, keys, strict=True):
        edges = [0, *sorted(int(number * (length + 1)) for number in place[1:]), length]
        cuts.append(Cut([end - start for start, end in pairwise(edges)], sorted(range(pieces), key=key.__getitem__)))
    return cuts

"""Input transforms that show the whole image several times, moved: on a grid, at random, in several sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.affine import Move, moved
from lightning_attack.attacks.input_transforms.base import InputDiversity, InputTransform, View, check_count, unmoved
from lightning_attack.attacks.random import Draws


class GridShifts(InputTransform):
    """Show the image shifted to all points of a grid, on black: the views of ANDA.

    Source: Z. Fang, R. Wang, T. Huang, L. Jing, "Strong Transferable Adversarial Attacks via Ensembled Asymptotically
    Normal Distribution Learning", CVPR 2024, arXiv 2209.11964; with `RunningMean` the ANDA attack.

        shifts of s_i * height / 2 and s_j * width / 2 pixels,   s = `grid` numbers evenly from -reach to reach

    in the order of the released code, with grid * grid views. Image and logits are sampled bilinearly, and pixels that
    leave the frame have no logits, see `RandomAffine`; the released code is for one label for each image.

    Args:
        grid: points of each side, 1 or more; the paper's is 5. 1 is the image itself.
        reach: largest shift as a share of half a side, in [0, 1]; the paper's is 0.3.
        undo: whether the logits are moved back.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> views = GridShifts(grid=3, reach=1.0)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), Draws([0]))
        >>> [view.images.flatten().tolist() for view in views][3:6]        # a pixel to the left, none, to the right
        [[2.0, 0.0, 4.0, 0.0], [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 3.0]]
    """

    spatial = True
    partial = True

    def __init__(self, grid: int = 5, reach: float = 0.3, undo: bool = True) -> None:
        if not 0 <= reach <= 1:
            raise ValueError(f"reach={reach}: must be between 0 and 1")
        self.grid, self.reach, self.undo = check_count("grid", grid), reach, undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        height, width = images.shape[-2:]
        last = self.grid - 1
        shares = [self.reach * (2 * i - last) / last if last else 0.0 for i in range(self.grid)]
        for down in shares:
            for right in shares:
                move = Move(right=right * width / 2, down=down * height / 2)
                yield moved(images, [move] * len(images), self.undo)


class DiverseSizes(InputTransform):
    """DEM: several views, each smaller at a random place on black, with larger and larger margins.

    Source: J. Zou et al., "Improving the Transferability of Adversarial Examples with Resized-Diverse-Inputs,
    Diversity-Ensemble and Region Fitting", ECCV 2020, arXiv 2112.06011.

        one view of `InputDiversity` with scale 1 / rate, always changed, for each of `rates`

    which is the paper's enlarged image with a margin, brought back to its size. Departs from the paper: it averages the
    logits of the views before the loss, here the loss of each view counts, so that memory stays that of one view.

    Args:
        rates: of the sizes with margin to those without, above 1 each; the paper's are 1.14, 1.27, 1.40, 1.53, 1.66.
        undo: whether the logits are moved back, see `InputDiversity`.

    Raises:
        ValueError: there are no rates, or one is not above 1.

    Example:
        >>> views = DiverseSizes(rates=[1.25, 2.0])(torch.ones(1, 1, 20, 20), Draws([0]))
        >>> [round(float(view.images.sum()) ** 0.5, 4) for view in views]       # 16 to 19, 10 to 19 pixels a side
        [16.0, 13.0]
    """

    spatial = True

    def __init__(self, rates: Sequence[float] = (1.14, 1.27, 1.40, 1.53, 1.66), undo: bool = True) -> None:
        if not rates or not all(1 < rate < float("inf") for rate in rates):
            raise ValueError(f"rates={list(rates)}: must be numbers above 1, such as 1.14, 1.4, 1.66")
        self.rates, self.undo = list(rates), undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for rate in self.rates:
            yield from InputDiversity(1 / rate, 1.0, self.undo)(images, draws)


class MovedCopies(InputTransform):
    """The image itself, and copies that are rolled, mirrored, turned or shrunk: the auxiliary inputs of MUMODIG.

    Source: Y. Ren et al., "Improving Integrated Gradient-based Transferable Adversarial Examples by Refining the
    Integration Path", AAAI 2025, arXiv 2412.18844; with `IntegratedGradients` the MUMODIG attack.

        each copy, for each image: with probability 1/2 `InputDiversity(scale, 1)`, with 1/10 each rolled down or to the
        right by any number of pixels, mirrored top to bottom or left to right, or turned by U(-degrees, degrees)

    The logits are moved back; pixels that a turn moves out of the frame have none, see `RandomAffine`.

    Args:
        copies: number of copies beside the image, 0 or more; the paper's is 6.
        degrees: largest angle, in [0, 180]; the paper's is 45.
        scale: smallest size of a shrunk copy, in (0, 1); the paper's is 224 / 245.
        undo: whether the logits are moved back.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image = torch.arange(16.0).view(1, 1, 4, 4)
        >>> views = list(MovedCopies(copies=3, degrees=0.0)(image, Draws([0])))
        >>> len(views), torch.equal(views[0].images, image), torch.equal(views[1].images, image)
        (4, True, False)
    """

    spatial = True
    partial = True

    def __init__(self, copies: int = 6, degrees: float = 45.0, scale: float = 224 / 245, undo: bool = True) -> None:
        if copies < 0:
            raise ValueError(f"copies={copies}: must be 0 or more; the paper's is 6")
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees={degrees}: must be between 0 and 180")
        InputDiversity(scale)  # refuses what is out of range
        self.copies, self.degrees, self.scale, self.undo = copies, degrees, scale, undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        yield View(images)
        for _ in range(self.copies):
            numbers = zip(draws.uniform_on_host("move kind"), draws.uniform_on_host("move size"), strict=True)
            parts = [
                self._move(image, int(10 * kind), size, draws.select([row]))
                for row, (image, (kind, size)) in enumerate(zip(images.split(1), numbers, strict=True))
            ]
            yield View(torch.cat([part.images for part in parts]), _each_back(parts) if self.undo else unmoved)

    def _move(self, image: Tensor, kind: int, size: float, draws: Draws) -> View:
        """The copy of one image, as a batch of one; `kind` is from 0 to 9, `size` in [0, 1)."""
        if kind < 5:
            return next(InputDiversity(self.scale, 1.0)(image, draws))
        if kind == 9:
            return moved(image, [Move(math.radians(self.degrees * (2 * size - 1)))])
        dim = -2 if kind % 2 else -1
        if kind < 7:
            pixels = int(size * image.shape[dim])
            return View(image.roll(pixels, dim), lambda logits: logits.roll(-pixels, dim))
        return View(image.flip(dim), lambda logits: logits.flip(dim))


def _each_back(parts: Sequence[View]) -> Callable[[Tensor], Tensor]:
    """`View.undo` of single images side by side."""
    return lambda logits: torch.cat([part.undo(one) for part, one in zip(parts, logits.split(1), strict=True)])

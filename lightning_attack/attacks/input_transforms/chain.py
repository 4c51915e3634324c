"""Input transform that shows each image through a random chain of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, check_count, unmoved, views
from lightning_attack.attacks.random import Draws


class RandomChain(InputTransform):
    """Show each image through some of several transforms, in random order, chosen anew for each image and view.

    After OPS: Y. Guo et al., "Boosting Adversarial Transferability through Augmentation in Hypothesis Space",
    CVPR 2025, whose chains have 2 to 4 operators, see the preset `ops`. Its random neighbours of the image are a
    transform of their own in front of the chain: `RandomNoise`.

        n ~ U{least, ..., most},   T_1 ... T_n of the transforms without repetition,   view T_n(... T_1(x))

    The logits go back through all of them, last first. Of a transform with several views one is drawn.

    Args:
        transforms: which to choose from; none that mixes images or changes their size.
        least: shortest chain, 0 or more. 0 may show the image itself.
        most: longest chain, `least` or more, at most the number of transforms.
        copies: number of views, 1 or more.

    Raises:
        ValueError: an argument is out of range, or a transform mixes images, adapts or changes their size.

    Example:
        >>> from lightning_attack.attacks.input_transforms.geometry import RandomFlip
        >>> image = torch.tensor([[[[1.0, 2.0]]]])
        >>> view = next(RandomChain([RandomFlip(prob=1.0)], most=1)(image, Draws([0])))
        >>> view.images, view.undo(view.images)
        (tensor([[[[2., 1.]]]]), tensor([[[[1., 2.]]]]))
    """

    def __init__(self, transforms: Sequence[InputTransform], least: int = 1, most: int = 3, copies: int = 1) -> None:
        self.transforms, self.copies = list(transforms), check_count("copies", copies)
        if not 0 <= least <= most <= len(self.transforms) or most == 0:
            raise ValueError(
                f"least={least}, most={most}: must be 0 <= least <= most, and most from 1 to the number of transforms, "
                f"which is {len(self.transforms)}"
            )
        self.least, self.most = least, most
        for transform in self.transforms:
            if transform.adapts:
                raise ValueError(f"{type(transform).__name__} adapts to the network; put it last in input_transforms")
            if transform.mixes:
                raise ValueError(
                    f"{type(transform).__name__} mixes images, and a chain shows each image by itself; put it before "
                    "the chain in input_transforms"
                )
            if transform.resizes:
                raise ValueError(
                    f"{type(transform).__name__} changes the size of images, and those of a batch go through different "
                    "chains; put it before or behind the chain in input_transforms, or set its high=1 (DynamicScaling)"
                )

    @property
    def spatial(self) -> bool:
        return any(transform.spatial for transform in self.transforms)

    @property
    def partial(self) -> bool:
        return any(transform.partial for transform in self.transforms)

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for _ in range(self.copies):
            yield self._view(images, draws)

    def _view(self, images: Tensor, draws: Draws) -> View:
        shown = [
            self._of_one(image, draws.select([row]), chain)
            for row, (image, chain) in enumerate(zip(images.split(1), self.chains(draws), strict=True))
        ]

        def undo(logits: Tensor) -> Tensor:
            return torch.cat([view.undo(part) for view, part in zip(shown, logits.split(1), strict=True)])

        return View(torch.cat([view.images for view in shown]), undo if self.spatial or self.partial else unmoved)

    def chains(self, draws: Draws) -> list[list[int]]:
        """Which transforms each image goes through, in order."""
        lengths = draws.uniform_on_host("chain length")
        keys = zip(*(draws.uniform_on_host("chain order") for _ in self.transforms), strict=True)
        numbers = range(len(self.transforms))
        return [
            sorted(numbers, key=key.__getitem__)[: self.least + int(length * (self.most - self.least + 1))]
            for length, key in zip(lengths, keys, strict=True)
        ]

    def _of_one(self, image: Tensor, draws: Draws, chain: Sequence[int]) -> View:
        """The view of one image, as a batch of one."""
        possible = list(views([self.transforms[number] for number in chain], image, draws))
        number = draws.uniform_on_host("chain view")[0] if len(possible) > 1 else 0
        draws.settle()
        return possible[int(number * len(possible))]

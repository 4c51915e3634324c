"""Input transforms that show the image at another scale, in part, or mirrored. The logits are moved back."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import Box, InputTransform, View, each, random_box, resize, unmoved
from lightning_attack.attacks.random import Draws


class DynamicScaling(InputTransform):
    """DS: show the image larger or smaller, at another scale in each step.

    After: J. Gu et al., "Adversarial Examples on Segmentation Models Can be Easy to Transfer", 2021, arXiv 2111.11368.
    A reading of its abstract: range and distribution of the paper's scales are not known to us.

        view = image resized to s H x s W (bilinear),   s ~ U(low, high) per image and step

    A model takes one size, and a batch has several: each image lies in the top left corner of a canvas of
    high H x high W, and goes on mirrored to the right and below, so that the network sees no black. The canvas follows
    from the settings alone, so no image depends on its batch; with low = high there is nothing but the image. The
    gradient of the mirrored part counts too, its logits do not: image and logits are cut out and resized back.

    Memory and time grow with high^2. A network of fixed input size needs high=1, and so does a `RandomChain`.

    Args:
        low: smallest scale, above 0.
        high: largest scale, `low` or more.
        undo: whether the logits are moved back; without it those of the whole canvas are resized to H x W.

    Raises:
        ValueError: not 0 < low <= high, or high is infinite.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0]]]])
        >>> view = next(DynamicScaling(low=2.0, high=2.0)(images, Draws([0])))
        >>> view.images[0, 0, 0], view.undo(view.images)         # two rows like this one
        (tensor([1.0000, 1.2500, 1.7500, 2.0000]), tensor([[[[1.1250, 1.8750]]]]))
    """

    spatial = True

    def __init__(self, low: float = 0.5, high: float = 1.5, undo: bool = True) -> None:
        if not 0 < low <= high < math.inf:
            raise ValueError(f"low={low}, high={high}: must be 0 < low <= high < infinity")
        self.low, self.high, self.undo = low, high, undo

    @property
    def resizes(self) -> bool:
        return self.high != 1

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        height, width = images.shape[-2:]

        def scaled(scale: float) -> tuple[int, int]:
            return max(1, round(scale * height)), max(1, round(scale * width))

        canvas = scaled(self.high)
        sizes = [scaled(self.low + number * (self.high - self.low)) for number in draws.uniform_on_host("scaling size")]

        def show(image: Tensor, size: tuple[int, int]) -> Tensor:
            return _mirrored(_mirrored(resize(image, size), canvas[0], -2), canvas[1], -1)

        def back(logits: Tensor, size: tuple[int, int]) -> Tensor:
            return resize(logits[..., : size[0], : size[1]], (height, width))

        def undo(logits: Tensor) -> Tensor:
            return each(back, logits, sizes) if self.undo else resize(logits, (height, width))

        yield View(each(show, images, sizes), undo)


class RandomCrop(InputTransform):
    """Show a part of the image, enlarged to its size.

        box of h x w, h from scale * H to H, w in proportion, at a random place; resized to H x W (bilinear)

    The logits are resized to the box; pixels outside have none.

    Args:
        scale: smallest share of each side that is shown, in (0, 1]. 1 is the image itself.
        undo: whether the logits are moved back.

    Raises:
        ValueError: scale is out of range.

    Example:
        >>> view = next(RandomCrop(scale=0.5)(torch.ones(1, 3, 2, 4), Draws([0])))
        >>> view.undo(torch.ones(1, 1, 2, 4))             # 1 where shown
        tensor([[[[0., 1., 1., 1.],
                  [0., 0., 0., 0.]]]])
    """

    spatial = True
    partial = True

    def __init__(self, scale: float = 0.6, undo: bool = True) -> None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale={scale}: must be above 0, at most 1")
        self.scale, self.undo = scale, undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        height, width = images.shape[-2:]
        numbers = zip(*(draws.uniform_on_host(f"crop {what}") for what in ("size", "top", "left")), strict=True)
        boxes = [random_box(height, width, self.scale, *three) for three in numbers]

        def show(image: Tensor, box: Box) -> Tensor:
            part = image[..., box.top : box.top + box.height, box.left : box.left + box.width]
            return resize(part, (height, width))

        def back(logits: Tensor, box: Box) -> Tensor:
            right, below = width - box.left - box.width, height - box.top - box.height
            return F.pad(resize(logits, (box.height, box.width)), (box.left, right, box.top, below))

        def undo(logits: Tensor) -> Tensor:
            return each(back, logits, boxes)

        yield View(each(show, images, boxes), undo if self.undo else unmoved)


class RandomFlip(InputTransform):
    """With some probability, show the image mirrored left to right.

    Args:
        prob: probability in [0, 1] that an image is mirrored, drawn for each image and step.
        undo: whether the logits are mirrored back.

    Raises:
        ValueError: prob is out of range.

    Example:
        >>> view = next(RandomFlip(prob=1.0)(torch.tensor([[[[1.0, 2.0]]]]), Draws([0])))
        >>> view.images, view.undo(view.images)
        (tensor([[[[2., 1.]]]]), tensor([[[[1., 2.]]]]))
    """

    spatial = True

    def __init__(self, prob: float = 0.5, undo: bool = True) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob={prob}: must be between 0 and 1")
        self.prob, self.undo = prob, undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        mirrored = (draws.uniform("flip coin") < self.prob).view(-1, 1, 1, 1)

        def flip(batch: Tensor) -> Tensor:
            return torch.where(mirrored, batch.flip(-1), batch)

        yield View(flip(images), flip if self.undo else unmoved)


def _mirrored(image: Tensor, length: int, dim: int) -> Tensor:
    """The image and its mirror image in turn, up to a length."""
    pairs = math.ceil(length / (2 * image.shape[dim]))
    return torch.cat([image, image.flip(dim)] * pairs, dim).narrow(dim, 0, length)

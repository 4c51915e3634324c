"""`InputTransform` and `View`: changed copies of images for the model, with the inverse move for its logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.attacks.random import Draws

Item = TypeVar("Item")


def unmoved(logits: Tensor) -> Tensor:
    """`View.undo` of a view whose pixels have not moved: the logits themselves."""
    return logits


@dataclass(frozen=True)
class View:
    """A changed copy of the images, and how its logits are brought back to the images' geometry.

    Attributes:
        images: (B, 3, H', W').
        undo: logits (B, C, H', W') -> logits (B, C, H, W); by default nothing was moved.
        warp: numbers that the view depends on and that take a step of their own before it counts, if there are any.
    """

    images: Tensor
    undo: Callable[[Tensor], Tensor] = unmoved
    warp: Warp | None = None


@dataclass(frozen=True)
class Warp:
    """Numbers that a view depends on, and that take a step against the attack before the view counts.

    Attributes:
        values: (B, ...), with a graph from them to the view's images and through its `undo`.
        rho: length of the step, in gradients of the loss per labelled pixel.
        at: other values -> the view with them.
    """

    values: Tensor
    rho: float
    at: Callable[[Tensor], View]


class InputTransform(ABC):
    """Makes views of images: changed copies that the model is shown instead of the images themselves.

    Objects hold settings only; randomness comes from `Draws`. What a transform does to pixels is said by the read-only
    properties below; a subclass for which they are fixed may write them as class attributes (`spatial = True`).
    """

    @property
    def spatial(self) -> bool:
        """Whether pixels move. `View.undo` moves logits back; features cannot be moved back."""
        return False

    @property
    def partial(self) -> bool:
        """Whether a view may leave pixels of the image without logits; `View.undo` puts 0 there, in each channel."""
        return False

    @property
    def mixes(self) -> bool:
        """Whether other images enter an image's view: its partners in `Draws`, or without these others of its batch."""
        return False

    @property
    def resizes(self) -> bool:
        """Whether its views have another size than the images."""
        return False

    @property
    def adapts(self) -> bool:
        """Whether its views have a `warp`, whose step costs a pass of the network. It is then the last one."""
        return False

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        """One view or several; gradients must reach `images` through them."""


class InputDiversity(InputTransform):
    """DI: with some probability, show the image smaller, at a random place on black.

    Source: C. Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity", CVPR 2019,
    arXiv 1803.06978.

        view pad(resize(x, h x w)) with probability `prob`, drawn for each image and step; else x
        h in [scale * H, H), w in proportion; resized bilinearly, padded with zeros to H x W at a random place

    Then the logits are cropped and resized back, so that labels, clean prediction and pixel weights keep their places.

    Departs from the released code, made for one label per image: that code leaves the prediction where it moved to,
    which compares pixels with the labels of others. `undo=False` does so too, to reproduce such results.

    Args:
        scale: smallest size as a share of the image's, in (0, 1). The common ports use 0.9; smaller is stronger on
            segmentation networks.
        prob: probability in [0, 1] that an image is changed.
        undo: whether the logits are moved back.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> images = torch.ones(1, 3, 8, 8)
        >>> view = next(InputDiversity(scale=0.5, prob=1.0)(images, Draws([0])))
        >>> view.images.shape, bool(view.images.min() == 0), torch.allclose(view.undo(view.images), images)
        (torch.Size([1, 3, 8, 8]), True, True)
    """

    spatial = True

    def __init__(self, scale: float = 0.9, prob: float = 0.5, undo: bool = True) -> None:
        if not 0 < scale < 1 or not 0 <= prob <= 1:
            raise ValueError(f"scale={scale} must be between 0 and 1 (excluded), prob={prob} between 0 and 1")
        self.scale, self.prob, self.undo = scale, prob, undo

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        height, width = images.shape[-2:]
        boxes = self.boxes(height, width, draws)

        def show(image: Tensor, box: Box | None) -> Tensor:
            if box is None:
                return image
            small = resize(image, (box.height, box.width))
            right, below = width - box.left - box.width, height - box.top - box.height
            return F.pad(small, (box.left, right, box.top, below))

        def back(logits: Tensor, box: Box | None) -> Tensor:
            if box is None:
                return logits
            part = logits[..., box.top : box.top + box.height, box.left : box.left + box.width]
            return resize(part, (height, width))

        def undo(logits: Tensor) -> Tensor:
            return each(back, logits, boxes)

        yield View(each(show, images, boxes), undo if self.undo else unmoved)

    def boxes(self, height: int, width: int, draws: Draws) -> list[Box | None]:
        """The box in which each image is shown; None = unchanged."""
        numbers = zip(
            *(draws.uniform_on_host(f"diversity {what}") for what in ("size", "top", "left", "coin")), strict=True
        )
        return [
            random_box(height, width, self.scale, size, top, left) if coin < self.prob else None
            for size, top, left, coin in numbers
        ]


class Box(NamedTuple):
    """A rectangle, in pixels."""

    top: int
    left: int
    height: int
    width: int


def views(transforms: Sequence[InputTransform], images: Tensor, draws: Draws) -> Iterator[View]:
    """The views of all transforms, one applied after the other; without a transform the images themselves."""
    if not transforms:
        yield View(images, unmoved)
        return
    *outer, last = transforms
    for view in views(outer, images, draws):
        for inner in last(view.images, draws):
            yield _behind(inner, view.undo)


def _behind(view: View, undo: Callable[[Tensor], Tensor]) -> View:
    """A view of a view, whose logits go back through both."""
    warp = view.warp
    again = None if warp is None else Warp(warp.values, warp.rho, lambda values: _behind(warp.at(values), undo))
    return View(view.images, _both(view.undo, undo), again)


def check_last(transforms: Sequence[InputTransform]) -> None:
    """Raise `ValueError` if a transform whose views adapt is not the last one."""
    for transform in transforms[:-1]:
        if transform.adapts:
            raise ValueError(
                f"{type(transform).__name__} takes a step of its own at what the network is shown; put it last in "
                "input_transforms"
            )


def _both(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda logits: second(first(logits))


def random_box(height: int, width: int, scale: float, size: float, top: float, left: float) -> Box:
    """The box that three numbers in [0, 1) stand for."""
    h, w = (low + int(size * (full - low)) for full in (height, width) for low in (max(1, int(full * scale)),))
    return Box(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w)


def each(change: Callable[[Tensor, Item], Tensor], batch: Tensor, items: Sequence[Item]) -> Tensor:
    """Apply `change` to each image, as a batch of one, with its own item of `items`."""
    return torch.cat([change(image, item) for image, item in zip(batch.split(1), items, strict=True)])


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The images in another size, bilinear; in their own size bit for bit the same."""
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def check_count(name: str, number: int) -> int:
    """The number, if it is 1 or more.

    Raises:
        ValueError: it is below 1; the message names the argument.
    """
    if not number >= 1:  # NaN too
        raise ValueError(f"{name}={number}: must be 1 or more")
    return number

"""`Norm`: the ball around each image that its perturbation stays in, and the steps inside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_attack.attacks.random import Draws
from lightning_attack.common.pixels import LEVELS, Pixels, from_levels, parse_pixels


class Norm(ABC):
    """A ball of radius `eps` around each image, cut with [0, 1]. All sizes are per image, never per batch.

    Args:
        eps: radius, of [0, 1] pixels, above 0: a number or a fraction such as `8/255`.

    Raises:
        ValueError: eps is not a number above 0.
    """

    name: str

    def __init__(self, eps: Pixels = "8/255") -> None:
        self.eps = parse_pixels(eps)

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent of unit length, (B, 3, H, W); zero where the gradient is zero."""

    @abstractmethod
    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation inside the ball."""

    @abstractmethod
    def random(self, images: Tensor, draws: Draws) -> Tensor:
        """A random perturbation inside the ball."""

    @abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """The norm of each image's perturbation, (B,)."""

    def per_value(self, length: float, values: int) -> float:
        """How far each of an image's values moves, if all move alike, in a perturbation of some length."""
        return length

    @abstractmethod
    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        """The adversarial images on the 8-bit grid (multiples of 1/255) and inside the ball."""

    def corner(self, delta: Tensor) -> Tensor:
        """The corner of the ball that is nearest to a perturbation; a value that did not change stays unchanged.

        Raises:
            ValueError: the ball has no corners.
        """
        raise ValueError(f"finish='sign': the ball of {self.name} has no corners; use linf")

    def start(self, images: Tensor, draws: Draws) -> Tensor:
        """A random point of the ball and of [0, 1]."""
        return (images + self.random(images, draws)).clamp(0, 1)

    def step(self, adversarial: Tensor, images: Tensor, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        """One step uphill, back into the ball, back into [0, 1]; its length is a number, or one per image (B, 1, 1, 1).

        x' = clamp(images + project(x + step_size * direction(gradient) - images), 0, 1)
        """
        delta = adversarial + step_size * self.direction(gradient) - images
        return (images + self.project(delta)).clamp(0, 1)


class Linf(Norm):
    """Every value may change by at most `eps`, which is at most 1. Steps along the sign of the gradient.

    Example:
        >>> Linf("51/255").project(torch.tensor([[[[-0.5, 0.1, 0.3]]]]))
        tensor([[[[-0.2000,  0.1000,  0.2000]]]])
    """

    name = "linf"

    def __init__(self, eps: Pixels = "8/255") -> None:
        super().__init__(eps)
        if self.eps > 1:
            raise ValueError(f"eps={eps!r}: images are in [0, 1], so an L-inf radius is at most 1; 8 levels are 8/255")

    def direction(self, gradient: Tensor) -> Tensor:
        # torch's sign of NaN is 0: a broken gradient would pass for a weak attack.
        return torch.where(gradient.isnan(), gradient, gradient.sign())

    def project(self, delta: Tensor) -> Tensor:
        return delta.clamp(-self.eps, self.eps)

    def corner(self, delta: Tensor) -> Tensor:
        return self.eps * self.direction(delta)

    def random(self, images: Tensor, draws: Draws) -> Tensor:
        """Uniform in the ball."""
        return draws.uniform("start", images.shape[1:], -self.eps, self.eps).to(images.dtype)

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        """Round to the nearest level that the ball allows.

        Clean images on the grid stay within eps exactly. Off the grid, a ball of less than half a level may hold no
        level at all; then the level nearest to the clean value is taken.
        """
        # A thousandth of a level: room for float32 noise at the ball's edge, far below what an image can show.
        low = (images * LEVELS - self.eps * LEVELS - 1e-3).ceil()
        high = (images * LEVELS + self.eps * LEVELS + 1e-3).floor()
        nearest = (images * LEVELS).round()
        levels = (adversarial * LEVELS).round().minimum(high.maximum(nearest)).maximum(low.minimum(nearest))
        return from_levels(levels.clamp(0, LEVELS))


class L2(Norm):
    """The Euclidean length of an image's perturbation, over all values of the image, is at most `eps`.

    Example:
        >>> L2(1.0).project(torch.tensor([[[[3.0, 4.0]]]]))
        tensor([[[[0.6000, 0.8000]]]])
    """

    name = "l2"

    def direction(self, gradient: Tensor) -> Tensor:
        return unit(gradient)

    def project(self, delta: Tensor) -> Tensor:
        length = self.size(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * _per_image((self.eps / length).clamp(max=1))

    def random(self, images: Tensor, draws: Draws) -> Tensor:
        """Uniform in the ball: a random direction, length eps * u^(1/n) of n values."""
        noise = draws.normal("start", images.shape[1:]).to(images.dtype)
        radius = draws.uniform("radius").to(images.dtype) ** (1 / noise[0].numel())
        return self.direction(noise) * _per_image(radius * self.eps)

    def size(self, delta: Tensor) -> Tensor:
        length: Tensor = delta.flatten(1).norm(dim=1)
        return length

    def per_value(self, length: float, values: int) -> float:
        return length / math.sqrt(values)

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        """Round to the nearest level; where that leaves the ball, cut each value's change to whole levels.

        Cutting never makes a change larger, so the length stays inside for clean images on the grid.
        """
        nearest = (adversarial * LEVELS).round()
        inward = (images * LEVELS).round() + ((adversarial - images) * LEVELS).trunc()
        fits = self.size(from_levels(nearest) - images) <= self.eps
        return from_levels(torch.where(_per_image(fits), nearest, inward))


def unit(gradient: Tensor) -> Tensor:
    """Each image's gradient, (B, ...), at the Euclidean length 1; zero where it is zero.

    Example:
        >>> unit(torch.tensor([3e-30, 4e-30]).view(1, 1, 1, 2)).flatten()
        tensor([0.6000, 0.8000])
    """
    # By a power of two first, which rounds nothing: squares of very small or large values are 0 or infinite, and the
    # result would have any length, or none.
    values = gradient.flatten(1)
    scaled = values.ldexp(-torch.frexp(values.abs().amax(1, keepdim=True)).exponent.clamp(-126, 126))
    lengths = scaled.norm(dim=1, keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
    found: Tensor = (scaled / lengths).view_as(gradient)
    return found


def make_norm(norm: str | Norm, eps: Pixels) -> Norm:
    """`linf` or `l2` with the radius `eps`; a `Norm` is returned unchanged.

    Raises:
        ValueError: unknown name.

    Example:
        >>> make_norm("l2", 0.5).eps
        0.5
    """
    if isinstance(norm, Norm):
        return norm
    known = {kind.name: kind for kind in (Linf, L2)}
    if norm not in known:
        raise ValueError(f"norm='{norm}': must be one of {', '.join(known)}")
    return known[norm](eps)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)

"""Input transforms that leave pixels in their places: darker, mixed and recoloured copies."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View, check_count, each, unmoved
from lightning_attack.attacks.input_transforms.spectral import dct2, idct2
from lightning_attack.attacks.random import Draws
from lightning_attack.common.pixels import Pixels, zero_or_more


class ScaleCopies(InputTransform):
    """SI: show the image at several brightnesses.

    Source: J. Lin et al., "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks", ICLR 2020,
    arXiv 1908.06281.

        views x / 2^i,   i = 0 .. copies - 1

    The gradient is the true one, so that of view i counts 1/2^i; `StraightThrough` around it gives all views the same
    weight, as some ports do.

    Args:
        copies: number of views, 1 or more; the paper's is 5. 1 is the image itself.

    Raises:
        ValueError: copies < 1.

    Example:
        >>> [float(view.images) for view in ScaleCopies(3)(torch.full((1, 1, 1, 1), 0.8), Draws([0]))]
        [0.800000011920929, 0.4000000059604645, 0.20000000298023224]
    """

    def __init__(self, copies: int = 5) -> None:
        self.copies = check_count("copies", copies)

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for power in range(self.copies):
            yield View(images / 2**power, unmoved)


class Admix(InputTransform):
    """Admix: add a little of other images.

    Source: X. Wang et al., "Admix: Enhancing the Transferability of Adversarial Attacks", ICCV 2021, arXiv 2102.00436.

        views x + strength * x',   x' another image, without gradient

    The paper's attack also shows each of them at 5 brightnesses: put `ScaleCopies` after it. As in the paper, views may
    be brighter than 1.

    Departs from the paper, which takes x' from other classes: a photo for segmentation shows several, so any other
    image will do. For each view it is one of the image's `partners`, which `SegmentationDataModule` draws from the data
    set, so that an image's result does not depend on its batch; where there are none (in Python), one of the batch, as
    in released code, which shuffles the batch and may give an image itself; here it never is. Which one is drawn from
    the image's own stream.

    Args:
        copies: number of views, 1 or more; the paper's is 3.
        strength: share of the other image, in [0, 1]; the paper's is 0.2. 0 shows the image itself, once.

    Raises:
        ValueError: an argument is out of range; when called: no partners, and the batch has one image.

    Example:
        >>> images = torch.tensor([0.5, 1.0]).view(2, 1, 1, 1)
        >>> next(Admix(strength=0.2)(images, Draws([0, 1]))).images.flatten()       # 0.5 + 0.2 * 1, 1 + 0.2 * 0.5
        tensor([0.7000, 1.1000])
    """

    def __init__(self, copies: int = 3, strength: float = 0.2) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength}: must be between 0 and 1")
        self.copies, self.strength = check_count("copies", copies), strength

    @property
    def mixes(self) -> bool:
        return self.strength > 0

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        if self.strength == 0:
            yield View(images, unmoved)
            return
        for _ in range(self.copies):
            yield View(images + self.strength * other_images(images, draws, "admix partner", "Admix"), unmoved)


class MixMask(InputTransform):
    """US-MM: darker copies, each times a mask made of another image.

    Source: "Boost Adversarial Transferability by Uniform Scale and Mix Mask Method", 2023, arXiv 2311.12051.

        views s_i x * (1 - mix + 2 mix x'),   s_i evenly from low to high,   x' another image, without gradient

    `masks` times all of the scales, with another x' each. As with `Admix`, x' is one of the image's partners, or
    without them one of its batch. Departs from a common port in two points. That clips views to [0, 1]; here pixels
    beyond keep their gradient. That takes the gradient at the view, as if the scale and the mask were 1; here it passes
    through both, so that darker views count less (`StraightThrough(MixMask())` is as there).

    Args:
        scales: how many brightnesses, 1 or more; the paper's is 5. 1 has s = high.
        masks: how many masks, 1 or more; the paper's is 3.
        low: smallest brightness, above 0, at most `high`; the paper's is 0.1.
        high: largest brightness, at most 1; the paper's is 0.75.
        mix: how far the mask is from 1, in [0, 1]; the paper's is 0.5. 0 needs no other image.

    Raises:
        ValueError: an argument is out of range; when called: no partners, and the batch has one image.

    Example:
        >>> images = torch.tensor([0.5, 1.0]).view(2, 1, 1, 1)
        >>> [view.images.flatten().tolist() for view in MixMask(2, 1, low=0.5, high=1.0)(images, Draws([0, 1]))]
        [[0.375, 0.5], [0.75, 1.0]]
    """

    def __init__(self, scales: int = 5, masks: int = 3, low: float = 0.1, high: float = 0.75, mix: float = 0.5) -> None:
        if not 0 < low <= high <= 1:
            raise ValueError(f"low={low}, high={high}: must be 0 < low <= high <= 1")
        if not 0 <= mix <= 1:
            raise ValueError(f"mix={mix}: must be between 0 and 1")
        self.scales, self.masks = check_count("scales", scales), check_count("masks", masks)
        self.low, self.high, self.mix = low, high, mix

    @property
    def mixes(self) -> bool:
        return self.mix > 0

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for _ in range(self.masks):
            mask: Tensor | float = 1.0
            if self.mix:
                mask = 1 - self.mix + 2 * self.mix * other_images(images, draws, "mask partner", "MixMask")
            for number in range(self.scales):
                share = number / (self.scales - 1) if self.scales > 1 else 1.0
                yield View(images * (self.low + share * (self.high - self.low)) * mask, unmoved)


class SpectrumSimulation(InputTransform):
    """SSA: change the image's frequencies at random.

    Source: Y. Long et al., "Frequency Domain Model Augmentation for Adversarial Attack", ECCV 2022, arXiv 2207.05382.

        views IDCT(DCT(x + n) * m),   n ~ N(0, sigma^2) per value,   m ~ U(1 - rho, 1 + rho) per frequency and colour

    As in the paper, views are not clipped to [0, 1].

    Departs from the released code: the gradient is the true one, while that code takes it at the view, as
    `StraightThrough` around this does; and any size of image will do, not 224 x 224 only.

    Args:
        copies: number of views, 1 or more; the paper's is 20.
        rho: largest relative change of a frequency, in [0, 1]; the paper's is 0.5.
        sigma: standard deviation of the noise in pixels of [0, 1] images, 0 or more; a number or a fraction such as
            `8/255`. The paper's is its budget, 16/255; the default is the budget of this package.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> images = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
        >>> view = next(SpectrumSimulation(rho=0.5, sigma=0)(images, Draws([0])))     # flat: one frequency, the mean
        >>> bool((view.images.std(dim=(2, 3)) < 1e-12).all()), bool(((view.images / 0.5 - 1).abs() <= 0.5).all())
        (True, True)
    """

    def __init__(self, copies: int = 20, rho: float = 0.5, sigma: Pixels = "8/255") -> None:
        if not 0 <= rho <= 1:
            raise ValueError(f"rho={rho}: must be between 0 and 1")
        self.copies, self.rho, self.sigma = check_count("copies", copies), rho, zero_or_more(sigma, "sigma")

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        shape = images.shape[1:]

        def simulate(image: Tensor, mask: Tensor) -> Tensor:
            return idct2(dct2(image) * mask).to(images.dtype)

        for _ in range(self.copies):
            noise = draws.normal("spectrum noise", shape).to(images.dtype) * self.sigma
            masks = draws.uniform("spectrum mask", shape, 1 - self.rho, 1 + self.rho).to(images.dtype)
            # Image by image: FFTs of a whole batch may round differently from those of one image.
            yield View(each(simulate, images + noise, masks.split(1)), unmoved)


class StraightThrough(InputTransform):
    """Show the views of a transform, and use the gradient with respect to the view as that of the image.

        views x + (T(x) - x) with the bracket constant

    This is what released code does that takes the gradient with respect to the transformed image, such as SSA's. The
    views are T(x) bit for bit.

    Args:
        transform: T; one that leaves pixels in their places.

    Raises:
        ValueError: the transform moves pixels, so that the gradient would land on others.

    Example:
        >>> image = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
        >>> _, half = StraightThrough(ScaleCopies(2))(image, Draws([0]))
        >>> half.images.item(), torch.autograd.grad(half.images, image)[0].item()      # not 0.5, as with ScaleCopies
        (0.25, 1.0)
    """

    def __init__(self, transform: InputTransform) -> None:
        if transform.spatial:
            raise ValueError(
                f"{type(transform).__name__} moves pixels, so the gradient at its views is not that of the same pixels "
                "of the image; StraightThrough takes transforms that leave pixels in their places, such as ScaleCopies"
            )
        self.transform = transform

    @property
    def partial(self) -> bool:
        return self.transform.partial

    @property
    def mixes(self) -> bool:
        return self.transform.mixes

    @property
    def resizes(self) -> bool:
        return self.transform.resizes

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        for view in self.transform(images.detach(), draws):
            # The bracket is 0, not T(x) - x, so that adding it rounds nothing.
            yield View(view.images + (images - images.detach()), view.undo)


def other_images(images: Tensor, draws: Draws, purpose: str, who: str) -> Tensor:
    """Another image for each one, without gradient: one of its partners, or without them one of the batch.

    Raises:
        ValueError: there are no partners, and the batch has one image; the message names the transform.
    """
    if draws.partners is None and len(images) == 1:
        raise ValueError(f"{who} adds another image; give partners, or a batch of 2 or more")
    numbers = draws.uniform_on_host(purpose)
    if draws.partners is not None:
        return torch.stack([own[int(number * len(own))] for own, number in zip(draws.partners, numbers, strict=True)])
    others = len(images) - 1
    chosen = [images[(image + 1 + int(number * others)) % len(images)] for image, number in enumerate(numbers)]
    return torch.stack(chosen).detach()

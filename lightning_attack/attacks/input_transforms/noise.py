"""Input transform that adds noise to the image."""

from __future__ import annotations

from collections.abc import Iterator

import torch  # noqa: F401 (the example)
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View
from lightning_attack.attacks.random import Draws
from lightning_attack.common.pixels import Pixels, zero_or_more


class RandomNoise(InputTransform):
    """Show the image with normal noise on it, drawn anew for each image and step.

    Source: the noise of SSA: Y. Long et al., "Frequency Domain Model Augmentation for Adversarial Attack", ECCV 2022,
    arXiv 2207.05382, here without the change of its spectrum. The gradient of such a view is that at a random neighbour
    of the image.

        view x + std * n,   n ~ N(0, 1), a number for each value of the image

    Views are (B, 3, H, W) as the images are, and not clipped to [0, 1].

    Args:
        std: standard deviation, of [0, 1] pixels, 0 or more; a number or a fraction. SSA's is its budget, 16/255. 0 is
            the image itself.

    Raises:
        ValueError: std is below 0 or not a finite number.

    Example:
        >>> grey = torch.full((1, 3, 100, 100), 0.5)
        >>> view = next(RandomNoise(std=0.1)(grey, Draws([0])))
        >>> round(float(view.images.mean()), 2), round(float(view.images.std()), 2)
        (0.5, 0.1)
    """

    def __init__(self, std: Pixels = "16/255") -> None:
        self.std = zero_or_more(std, "std")

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        yield View(images + (self.std * draws.normal("noise", images.shape[1:])).to(images.dtype))

"""Input transform that changes the colours of the whole image; no pixel moves."""

from __future__ import annotations

from collections.abc import Iterator

import torch  # noqa: F401 (the example)
from torch import Tensor

from lightning_attack.attacks.input_transforms.base import InputTransform, View
from lightning_attack.attacks.random import Draws


class RandomColour(InputTransform):
    """Show the image greyer, with more or less contrast, brighter or darker.

    After "Ultimate Combo", 2023, arXiv 2312.11309, which finds greyscale and other changes of colour strong together
    with those of geometry; the formula and the ranges are ours.

        view (x' - 1/2) c + 1/2 + b,   x' = (1 - g) x + g mean of x over the colours,
        g ~ U(0, grey),   c ~ U(1 - contrast, 1 + contrast),   b ~ U(-brightness, brightness)

    Views are not clipped to [0, 1].

    Args:
        grey: largest share of grey, in [0, 1].
        contrast: largest relative change of contrast, in [0, 1].
        brightness: largest change of brightness, of [0, 1] pixels, in [0, 1].

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image = torch.tensor([0.2, 0.4, 0.9]).view(1, 3, 1, 1)
        >>> view = next(RandomColour(grey=1.0, contrast=0.0, brightness=0.0)(image, Draws([0])))
        >>> round(float(view.images.mean()), 4), bool(view.images.std() < image.std())
        (0.5, True)
    """

    def __init__(self, grey: float = 0.5, contrast: float = 0.3, brightness: float = 0.1) -> None:
        for name, value in (("grey", grey), ("contrast", contrast), ("brightness", brightness)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must be between 0 and 1")
        self.grey, self.contrast, self.brightness = grey, contrast, brightness

    def __call__(self, images: Tensor, draws: Draws) -> Iterator[View]:
        def draw(name: str, low: float, high: float) -> Tensor:
            return draws.uniform(f"colour {name}", (1, 1, 1), low, high).to(images.dtype)

        grey, contrast = draw("grey", 0, self.grey), draw("contrast", 1 - self.contrast, 1 + self.contrast)
        brightness = draw("brightness", -self.brightness, self.brightness)
        mixed = images + grey * (images.mean(1, keepdim=True) - images)
        yield View((mixed - 0.5) * contrast + 0.5 + brightness)

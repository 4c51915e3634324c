"""What images that were attacked elsewhere show together: another order of colours or of images, a huge change."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attack.data.base import DataError
from lightning_attack.data.notices import warn

LARGE = 64
"""In levels of 1/255: attacks that shall not be seen change values by 16 at most, and usually by 8."""
_GRID, _FAR, _MANY = 16, 4 / 255, 2048


class AdversarialSurvey:
    """Sees every pair of a photo and its adversarial image once, and says at the end what is wrong with all of them.

    Pairs are compared in squares of a grid, whose means an attack hardly changes.

    Args:
        root: where the images lie, for messages.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: list[str] = []
        self._photos: list[Tensor] = []
        self._images: list[Tensor] = []
        self._large: list[tuple[float, str]] = []

    def see(self, name: str, image: Tensor, photo: Tensor) -> None:
        """Take note of a pair of one size, (3, H, W) each, uint8 or floating in [0, 1]."""
        if image.dtype == photo.dtype == torch.uint8:
            worst = float(torch.maximum(image, photo).sub(torch.minimum(image, photo)).max())
        else:
            worst = float((_unit(image) - _unit(photo)).abs().max()) * 255
        if worst > LARGE + 1e-3:
            self._large.append((worst, name))
        self._names.append(name)
        self._photos.append(_grid(photo))
        self._images.append(_grid(image))

    def finish(self) -> None:
        """Say what all pairs show together.

        Raises:
            DataError: most images fit their photos better with red and blue exchanged, or fit other photos better.
        """
        if not self._names:
            return
        photos, images = torch.stack(self._photos), torch.stack(self._images)
        own = (images - photos).abs().mean((1, 2, 3))
        swapped = (images.flip(1) - photos).abs().mean((1, 2, 3))
        better = (swapped < own / 2) & (own > _FAR)
        if better.sum() * 2 > len(better):
            raise DataError(
                f"{int(better.sum())} of {len(better)} adversarial images in '{self.root}' fit their photos better "
                "with red and blue exchanged; were they saved as BGR, as OpenCV does? Save RGB: image[..., ::-1]"
            )
        self._check_order(photos[:_MANY].flatten(1), images[:_MANY].flatten(1))
        if self._large:
            worst, name = max(self._large)
            warn(
                f"{len(self._large)} of {len(self._names)} adversarial images are more than {LARGE}/255 from their "
                f"photos, the farthest '{name}' with {worst:.4g}/255. If the attack had a budget, these are not its "
                "images of these photos (another size, order or normalisation); data.adversarial_eps makes it an error"
            )

    def _check_order(self, photos: Tensor, images: Tensor) -> None:
        distances = torch.cdist(images, photos, p=1) / photos.shape[1]
        nearest, place = distances.min(1)
        own = distances.diagonal()
        wrong = ((nearest < own / 2) & (own > _FAR)).nonzero().flatten().tolist()
        if not wrong:
            return
        first, other = self._names[wrong[0]], self._names[int(place[wrong[0]])]
        found = (
            f"{len(wrong)} of {len(own)} adversarial images in '{self.root}' fit other photos better than their own; "
            f"that of '{first}' fits '{other}'"
        )
        if len(wrong) * 2 > len(own):
            raise DataError(
                f"{found}. Are they in another order? Images without names must come in the order of the photos' "
                "paths; save them under the names of their photos"
            )
        warn(found)


def _grid(image: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(_unit(image), _GRID)


def _unit(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()

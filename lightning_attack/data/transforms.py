"""Joint geometry of photo and mask, on 8-bit photos: what is attacked lies on the 8-bit grid."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from lightning_attack.common.labels import IGNORE_INDEX

FitMode = Literal["stretch", "crop", "pad", "long_side"]


class Fit:
    """Bring photo and mask to one size, together.

    Photos are resized bilinearly (antialiased, rounded to 8 bits), masks by nearest neighbour, so that no class is
    invented.

    Args:
        size: (height, width) or one number for both; None keeps each photo's own.
        mode: `stretch` (whole photo, aspect ratio lost), `crop` (keeps the aspect ratio, cuts the longer side's ends),
            `pad` (keeps the aspect ratio and the whole photo; black, ignored pixels below or right), `long_side` (as
            `pad`, but nothing is added, so photos differ in size).

    Raises:
        ValueError: size below 1 or an unknown mode.

    Example:
        >>> import torch
        >>> image, mask = torch.full((3, 4, 8), 100, dtype=torch.uint8), torch.ones(4, 8, dtype=torch.uint8)
        >>> Fit(4, "pad")(image, mask)[1].tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1], [255, 255, 255, 255], [255, 255, 255, 255]]
        >>> Fit((2, 2), "crop")(image, mask)[0].shape
        torch.Size([3, 2, 2])
    """

    def __init__(self, size: int | tuple[int, int] | None, mode: str = "stretch") -> None:
        if mode not in get_args(FitMode):
            raise ValueError(f"fit='{mode}': must be one of {', '.join(get_args(FitMode))}")
        pair = (size, size) if isinstance(size, int) else size
        if pair is not None and (len(pair) != 2 or min(pair) < 1):
            raise ValueError(f"size={size}: give height and width in pixels, 1 or more")
        self.size = None if pair is None else (pair[0], pair[1])
        self.mode = mode

    def __call__(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Photo (3, H, W) uint8 and mask (H, W) uint8 or None, brought to the size."""
        if self.size is None or tuple(image.shape[-2:]) == self.size:
            return image, mask
        photo = self._fit(image, self.size, InterpolationMode.BILINEAR, fill=0)
        if mask is None:
            return photo, None
        return photo, self.mask(mask)

    def mask(self, mask: Tensor, fill: int = IGNORE_INDEX) -> Tensor:
        """Mask (H, W) uint8 brought to the size; `fill` is the value of padded pixels."""
        if self.size is None or tuple(mask.shape) == self.size:
            return mask
        # nearest-exact takes the centres of the pixels, as bilinear does; plain nearest would shift the mask.
        return self._fit(mask[None], self.size, InterpolationMode.NEAREST_EXACT, fill)[0]

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what a photo of this size becomes.

        Example:
            >>> Fit(4).shape(6, 8), Fit(4, "long_side").shape(6, 8), Fit(None).shape(6, 8)
            ((4, 4), (3, 4), (6, 8))
        """
        if self.size is None:
            return height, width
        return self._inner(height, width, self.size) if self.mode == "long_side" else self.size

    def _inner(self, height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a photo in its aspect ratio, around the size (`crop`) or inside it."""
        ratios = size[0] / height, size[1] / width
        ratio = max(ratios) if self.mode == "crop" else min(ratios)
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def _fit(self, picture: Tensor, size: tuple[int, int], interpolation: InterpolationMode, fill: int) -> Tensor:
        if self.mode == "stretch":
            return F.resize(picture, list(size), interpolation)
        inner = self._inner(picture.shape[-2], picture.shape[-1], size)
        picture = F.resize(picture, list(inner), interpolation)
        if self.mode == "long_side":
            return picture
        if self.mode == "crop":
            return F.center_crop(picture, list(size))
        return F.pad(picture, [0, 0, size[1] - inner[1], size[0] - inner[0]], fill=fill)

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
        divisor: photos that may differ in size (no `size`, or `long_side`) are padded, as by `pad`, until their sides
            are multiples of it; None: they are not.

    Raises:
        ValueError: size or divisor below 1, an unknown mode, or a divisor where all photos have one size.

    Example:
        >>> import torch
        >>> image, mask = torch.full((3, 4, 8), 100, dtype=torch.uint8), torch.ones(4, 8, dtype=torch.uint8)
        >>> Fit(4, "pad")(image, mask)[1].tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1], [255, 255, 255, 255], [255, 255, 255, 255]]
        >>> Fit((2, 2), "crop")(image, mask)[0].shape
        torch.Size([3, 2, 2])
        >>> Fit(None, divisor=5)(image, mask)[0].shape
        torch.Size([3, 5, 10])
    """

    def __init__(self, size: int | tuple[int, int] | None, mode: str = "stretch", divisor: int | None = None) -> None:
        if mode not in get_args(FitMode):
            raise ValueError(f"fit='{mode}': must be one of {', '.join(get_args(FitMode))}")
        pair = (size, size) if isinstance(size, int) else size
        if pair is not None and (len(pair) != 2 or min(pair) < 1):
            raise ValueError(f"size={size}: give height and width in pixels, 1 or more")
        if divisor is not None and divisor < 1:
            raise ValueError(f"size_divisor={divisor}: must be 1 or more (null: photos are not padded)")
        if divisor is not None and pair is not None and mode != "long_side":
            raise ValueError(
                f"size_divisor={divisor} pads photos that differ in size, but size={size} with fit='{mode}' makes all "
                "of them alike; leave one of the two out, or use fit=long_side"
            )
        self.size = None if pair is None else (pair[0], pair[1])
        self.mode, self.divisor = mode, divisor

    def __call__(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Photo (3, H, W) uint8 and mask (H, W) uint8 or None, brought to the size."""
        photo = self._fit(image, InterpolationMode.BILINEAR, fill=0)
        return photo, None if mask is None else self.mask(mask)

    def mask(self, mask: Tensor, fill: int = IGNORE_INDEX) -> Tensor:
        """Mask (H, W) uint8 brought to the size; `fill` is the value of padded pixels."""
        # nearest-exact takes the centres of the pixels, as bilinear does; plain nearest would shift the mask.
        return self._fit(mask[None], InterpolationMode.NEAREST_EXACT, fill)[0]

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what a photo of this size becomes.

        Example:
            >>> [fit.shape(6, 8) for fit in (Fit(4), Fit(4, "long_side"), Fit(None), Fit(None, divisor=4))]
            [(4, 4), (3, 4), (6, 8), (8, 8)]
        """
        if self.size is not None and self.mode != "long_side":
            return self.size
        height, width = self._resized(height, width)
        unit = self.divisor or 1
        return height + -height % unit, width + -width % unit

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a photo once it is resized, before it is cropped or padded."""
        if self.size is None:
            return height, width
        if self.mode == "stretch":
            return self.size
        ratios = self.size[0] / height, self.size[1] / width
        ratio = max(ratios) if self.mode == "crop" else min(ratios)
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def _fit(self, picture: Tensor, interpolation: InterpolationMode, fill: int) -> Tensor:
        own = picture.shape[-2], picture.shape[-1]
        inner, outer = self._resized(*own), self.shape(*own)
        if inner != own:
            picture = F.resize(picture, list(inner), interpolation)
        if inner == outer:
            return picture
        if self.mode == "crop":
            return F.center_crop(picture, list(outer))
        return F.pad(picture, [0, 0, outer[1] - inner[1], outer[0] - inner[0]], fill=fill)

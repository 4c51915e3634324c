"""Random geometry and colour of photos to learn from, photo and mask together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from lightning_attack.common.labels import IGNORE_INDEX


class Augment:
    """Random scale, rotation, crop, flip and colours, by torchvision's v2 transforms.

    The photo is enlarged by a random factor and turned by a random angle, a crop of one size is cut out, mirrored now
    and then, and its colours are changed. Masks take the nearest pixel; outside of the photo crops are black and
    ignored.

    Args:
        crop: height and width of the crop, or one number for both.
        scale: smallest and largest factor, above 0; `[0.5, 2.0]` in the papers of the field.
        flip: probability that the crop is mirrored, in [0, 1].
        jitter: strength of changes of brightness, contrast and saturation, 0 or more; 0 leaves the colours alone.
        rotate: largest angle to either side in degrees, in [0, 180]; 10 in the papers of the field, 0 = none.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> image, mask = torch.full((3, 6, 9), 100, dtype=torch.uint8), torch.ones(6, 9, dtype=torch.uint8)
        >>> image, mask = Augment(crop=8)(image, mask)
        >>> image.shape, mask.shape
        (torch.Size([3, 8, 8]), torch.Size([8, 8]))
    """

    def __init__(
        self,
        crop: int | tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        jitter: float = 0.0,
        rotate: float = 0.0,
    ) -> None:
        pair = (crop, crop) if isinstance(crop, int) else (crop[0], crop[1])
        in_range = 0 < scale[0] <= scale[1] and 0 <= flip <= 1 and jitter >= 0 and 0 <= rotate <= 180
        if min(pair) < 1 or not in_range:
            raise ValueError(
                f"crop={crop} must be 1 or more, scale={list(scale)} two numbers above 0 in order, flip={flip} between "
                f"0 and 1, jitter={jitter} 0 or more, rotate={rotate} between 0 and 180"
            )
        self.crop, self.scale, self.flip, self.jitter, self.rotate = pair, scale, flip, jitter, rotate
        fill = {tv_tensors.Mask: IGNORE_INDEX, "others": 0}
        steps: list[nn.Module] = [
            _RandomScale(scale),
            *([v2.RandomRotation(rotate, InterpolationMode.BILINEAR, fill=fill)] if rotate else []),
            v2.RandomCrop(pair, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(flip),
        ]
        if jitter:
            steps.append(v2.ColorJitter(jitter, jitter, jitter))
        self._steps = v2.Compose(steps)

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Photo (3, H, W) uint8 and mask (H, W) uint8 as crops."""
        image, mask = self._steps(tv_tensors.Image(image), tv_tensors.Mask(mask[None]))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)[0]


class _RandomScale(v2.Transform):
    """Resize by a random factor; both sides by the same one."""

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.scale = scale

    def make_params(self, flat_inputs: list[Tensor]) -> dict[str, list[int]]:
        height, width = v2.query_size(flat_inputs)
        factor = float(torch.empty(()).uniform_(*self.scale))
        return {"size": [max(1, round(factor * height)), max(1, round(factor * width))]}

    def transform(self, inpt: Tensor, params: dict[str, list[int]]) -> Tensor:
        if isinstance(inpt, tv_tensors.Mask):
            # The centres of the pixels, as for photos; torchvision's own kernel for masks is off by up to half a pixel.
            resized = v2.functional.resize(inpt.as_subclass(Tensor), params["size"], InterpolationMode.NEAREST_EXACT)
            return tv_tensors.wrap(resized, like=inpt)
        return self._call_kernel(v2.functional.resize, inpt, params["size"], antialias=True)

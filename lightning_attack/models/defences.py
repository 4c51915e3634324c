"""Input defences: what happens to an image between the attacker and a defended network."""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lightning_attack.common.pixels import from_levels
from lightning_attack.models.exported import load_program
from lightning_attack.models.wrapper import ModelError

Undo = Callable[[Tensor], Tensor]


def unmoved(logits: Tensor) -> Tensor:
    """The way back from an image whose pixels have kept their places."""
    return logits


@dataclass(frozen=True)
class DefendedView:
    """What a defence makes of an image.

    Attributes:
        image: (3, h, w) in [0, 1].
        undo: brings logits (1, C, h, w) of it to the places and the size of the image before.
    """

    image: Tensor
    undo: Undo = unmoved


class Defence(nn.Module, ABC):
    """A defence that changes the images which a network is shown. A subclass gives `views`.

    Its settings are attributes of plain values: they are part of the hash of the networks of a run.
    """

    @abstractmethod
    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        """What the network is shown in place of an image; of several views its probabilities are averaged.

        Args:
            image: (3, H, W) in [0, 1].
            draws: a generator on the CPU for all that is random, the same for the same image.
        """


class JPEG(Defence):
    """Compression and decompression by libjpeg, with its usual subsampling of colours (4:2:0).

    Source: C. Guo et al., "Countering Adversarial Images using Input Transformations", ICLR 2018, arXiv 1711.00117.

    Args:
        quality: of libjpeg, 1 to 100; lower is smaller and coarser.

    Raises:
        ModelError: `quality` is out of range.

    Example:
        >>> grey = torch.full((3, 8, 8), 128 / 255)
        >>> (JPEG(75).views(grey, torch.Generator())[0].image * 255).unique()
        tensor([128.])
    """

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        if not 1 <= quality <= 100:
            raise ModelError(f"JPEG: quality={quality} must be 1 to 100")
        self.quality = quality

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        levels = (image.detach() * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "JPEG", quality=self.quality)
        read = np.array(Image.open(file))
        return [DefendedView(from_levels(torch.from_numpy(read).permute(2, 0, 1).to(image)))]


class BitDepth(Defence):
    """Colours rounded to fewer bits: x -> round(x (2^bits - 1)) / (2^bits - 1).

    Source: W. Xu et al., "Feature Squeezing", NDSS 2018, arXiv 1704.01155.

    Args:
        bits: for each colour, 1 to 8.

    Raises:
        ModelError: `bits` is out of range.

    Example:
        >>> BitDepth(1).views(torch.tensor([0.2, 0.5, 0.7]).view(3, 1, 1), torch.Generator())[0].image.flatten()
        tensor([0., 0., 1.])
    """

    def __init__(self, bits: int = 4) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise ModelError(f"BitDepth: bits={bits} must be 1 to 8")
        self.bits = bits

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        levels = 2**self.bits - 1
        return [DefendedView((image * levels).round() / levels)]


class MedianFilter(Defence):
    """The median of each colour in a square around each pixel; at the borders, border pixels are repeated.

    Source: W. Xu et al., "Feature Squeezing", NDSS 2018, arXiv 1704.01155.

    Args:
        size: side of the square in pixels, odd.

    Raises:
        ModelError: `size` is even or below 1.

    Example:
        >>> spot = torch.zeros(3, 3, 3)
        >>> spot[:, 1, 1] = 1
        >>> MedianFilter(3).views(spot, torch.Generator())[0].image.max()
        tensor(0.)
    """

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ModelError(f"MedianFilter: size={size} must be odd and 1 or more")
        self.size = size

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        border = self.size // 2
        padded = F.pad(image[None], (border,) * 4, mode="replicate")
        squares = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        # Sorted: torch refuses the median on CUDA where results shall be the same to the last bit.
        return [DefendedView(squares.sort(-1).values[0, ..., self.size**2 // 2])]


class GaussianFilter(Defence):
    """Gaussian blur, cut off after four standard deviations; at the borders, border pixels are repeated.

    Args:
        sigma: standard deviation in pixels, above 0.

    Raises:
        ModelError: `sigma` is out of range.

    Example:
        >>> GaussianFilter(1.0).views(torch.ones(3, 4, 4), torch.Generator())[0].image.unique().round(decimals=4)
        tensor([1.])
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        if not 0 < sigma < math.inf:
            raise ModelError(f"GaussianFilter: sigma={sigma} must be above 0")
        self.sigma = sigma

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        radius = int(4 * self.sigma + 0.5)
        places = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
        bell = (-0.5 * (places / self.sigma) ** 2).exp()
        bell = bell / bell.sum()
        columns = F.pad(image[:, None], (0, 0, radius, radius), mode="replicate")
        rows = F.conv2d(columns, bell.view(1, 1, -1, 1))
        blurred = F.conv2d(F.pad(rows, (radius, radius, 0, 0), mode="replicate"), bell.view(1, 1, 1, -1))
        return [DefendedView(blurred[:, 0].clamp(0, 1))]


class ResizeAndPad(Defence):
    """The image shrunk to a random size and put at a random place of a black one; logits are moved back.

    Source: C. Xie et al., "Mitigating Adversarial Effects Through Randomization", ICLR 2018, arXiv 1711.01991, which
    enlarges images of classifiers; shrinking keeps the size that a segmentation network was trained for.

    Args:
        smallest: least height and width, as a share of the image's, in (0, 1].

    Raises:
        ModelError: `smallest` is out of range.

    Example:
        >>> view = ResizeAndPad(1.0).views(torch.rand(3, 4, 6), torch.Generator())[0]
        >>> view.image.shape, view.undo(torch.zeros(1, 2, 4, 6)).shape
        (torch.Size([3, 4, 6]), torch.Size([1, 2, 4, 6]))
    """

    def __init__(self, smallest: float = 0.9) -> None:
        super().__init__()
        if not 0 < smallest <= 1:
            raise ModelError(f"ResizeAndPad: smallest={smallest} must be above 0 and at most 1")
        self.smallest = smallest

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        share, down, right = torch.rand(3, generator=draws).tolist()
        full = image.shape[-2:]
        scale = self.smallest + (1 - self.smallest) * share
        height, width = (max(1, round(side * scale)) for side in full)
        top, left = int(down * (full[0] - height + 1)), int(right * (full[1] - width + 1))
        small = _resized(image[None], (height, width))
        around = (left, full[1] - width - left, top, full[0] - height - top)

        def undo(logits: Tensor) -> Tensor:
            return _resized(logits[..., top : top + height, left : left + width], full)

        return [DefendedView(F.pad(small, around)[0], undo)]


class CropAndScale(Defence):
    """Four crops of one random size, one at each corner of the image, enlarged to its size; logits are moved back.

    Source: C. Guo et al., ICLR 2018, arXiv 1711.00117, who average over random crops. A segmentation network has to see
    every pixel: crops are at least half as high and as wide as the image, so that the four cover it. Where they
    overlap, probabilities are averaged.

    Args:
        smallest: least height and width of a crop, as a share of the image's, in [0.5, 1].

    Raises:
        ModelError: `smallest` is out of range.

    Example:
        >>> views = CropAndScale(0.5).views(torch.rand(3, 40, 60), torch.Generator())
        >>> len(views), views[0].image.shape, views[0].undo(torch.ones(1, 2, 40, 60)).shape
        (4, torch.Size([3, 40, 60]), torch.Size([1, 2, 40, 60]))
    """

    def __init__(self, smallest: float = 0.8) -> None:
        super().__init__()
        if not 0.5 <= smallest <= 1:
            raise ModelError(
                f"CropAndScale: smallest={smallest} must be 0.5 to 1; smaller crops would leave pixels out"
            )
        self.smallest = smallest

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        full = image.shape[-2:]
        shares = self.smallest + (1 - self.smallest) * torch.rand(2, generator=draws, dtype=torch.float64)
        height, width = (math.ceil(side * share) for side, share in zip(full, shares.tolist(), strict=True))
        # Fewer where a crop is as high or as wide as the image.
        corners = dict.fromkeys((top, left) for top in (0, full[0] - height) for left in (0, full[1] - width))
        return [_crop(image, top, left, height, width) for top, left in corners]


def _crop(image: Tensor, top: int, left: int, height: int, width: int) -> DefendedView:
    full = image.shape[-2:]
    around = (left, full[1] - width - left, top, full[0] - height - top)

    def undo(logits: Tensor) -> Tensor:
        # Equal logits outside: no class gains there, whatever the other crops say.
        return F.pad(_resized(logits, (height, width)), around)

    return DefendedView(_resized(image[None, :, top : top + height, left : left + width], full)[0], undo)


class FlipAndScales(Defence):
    """Predictions on the image at several scales, and mirrored, averaged: the usual inference of published tables.

    Args:
        scales: factors of height and width, each above 0.
        flip: also mirror each of them.

    Raises:
        ModelError: there are no scales, or one is out of range.

    Example:
        >>> [view.image.shape[-1] for view in FlipAndScales([0.5, 1.0]).views(torch.rand(3, 4, 8), torch.Generator())]
        [4, 4, 8, 8]
    """

    def __init__(self, scales: Sequence[float] = (0.75, 1.0, 1.25), flip: bool = True) -> None:
        super().__init__()
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ModelError(f"FlipAndScales: scales={list(scales)} must be one or more numbers above 0")
        self.scales, self.flip = list(scales), flip

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        full = image.shape[-2:]

        def back(logits: Tensor) -> Tensor:
            return _resized(logits, full)

        def mirrored_back(logits: Tensor) -> Tensor:
            return _resized(logits.flip(-1), full)

        found = []
        for scale in self.scales:
            view = _resized(image[None], [max(1, round(side * scale)) for side in full])[0]
            found.append(DefendedView(view, back))
            if self.flip:
                found.append(DefendedView(view.flip(-1), mirrored_back))
        return found


class Purifier(Defence):
    """A network from images to cleaner images, such as a denoiser or a diffusion model in a `.pt2` file.

    Args:
        network: takes (1, 3, H, W) in [0, 1] and returns the same; values outside are cut off. `path` of a file of
            `torch.export` in its place.

    Raises:
        ModelError: there is no such file, it holds more than a program, or the network does not take the size of an
            image or returns another shape.
    """

    def __init__(self, network: nn.Module | str) -> None:
        super().__init__()
        self.network = load_program(network)[2] if isinstance(network, str) else network

    def views(self, image: Tensor, draws: torch.Generator) -> Sequence[DefendedView]:
        try:
            purified = self.network(image[None])
        except AssertionError as error:  # a condition on sizes that an exported program carries
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"Purifier: its network was not exported for images of size {list(image.shape[-2:])} ({reason}); set "
                "data.size to the one it takes, or export it with torch.export.Dim.DYNAMIC for height and width"
            ) from error
        if not isinstance(purified, Tensor) or purified.shape != image[None].shape:
            shape = tuple(purified.shape) if isinstance(purified, Tensor) else type(purified).__name__
            raise ModelError(f"Purifier: returned {shape} for an image {tuple(image[None].shape)}; both must be equal")
        return [DefendedView(purified[0].clamp(0, 1))]


def _resized(values: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=False)

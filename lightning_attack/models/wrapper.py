"""`SegmentationModel`: any network as a function from [0, 1] images to logits of the same size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.common.errors import UserError
from lightning_attack.common.windows import Windows

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class ModelError(UserError, ValueError):
    """A network that cannot be built, loaded or run; the message says what was found and what is needed."""


class SegmentationModel(nn.Module):
    """A network on [0, 1] images: normalise, pad to the stride, run, resize the logits, crop them to the image's size.

    This is the only place of the project that normalises; everything outside lives in [0, 1] pixels, so a budget
    of 8/255 means 8 levels of an 8-bit image whatever the network was trained with.

        logits = crop(resize(network(pad((images - mean) / std))))

    Padding is zeros in normalised space (the mean colour) at the bottom and the right.

    With `windows` set, it is run on each window of the images (in eval mode only), and where windows overlap their
    probabilities are averaged: logits = log mean_w softmax(logits of window w), as in PSPNet's protocol. An image that
    is one window keeps its logits; one that is smaller is padded to a window.

    Args:
        network: takes (B, 3, H, W), returns logits (B, C, h, w). A dictionary with the key `out` or `logits`, an
            object with the attribute `logits` (torchvision, transformers) and a tuple or list that begins with the
            logits are taken too; h x w may be smaller than H x W.
        num_classes: C; None means that it is read off the first output.
        mean: mean of each colour in [0, 1], subtracted first.
        std: standard deviation of each colour, divided by; above 0.
        stride: height and width of the network's input are padded to multiples of it; 1 = no padding.
        name: name in tables and folders; the default is the network's class in snake_case.

    Raises:
        ModelError: an argument is out of range, or the output is not logits of `num_classes` classes.

    Example:
        >>> identity = SegmentationModel(nn.Identity(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), stride=4)
        >>> identity(torch.ones(1, 3, 5, 7))[0, 0, 0, 0]     # (1 - 0.5) / 0.25
        tensor(2.)
        >>> identity(torch.ones(1, 3, 5, 7)).shape
        torch.Size([1, 3, 5, 7])
    """

    mean: Tensor
    std: Tensor
    windows: Windows | None = None
    fast: Callable[[Tensor], Tensor] | None = None
    """Used instead of `outputs` in eval mode; a plain callable, so that weights are not registered twice."""
    fast_from = 0
    """Least number of pixels of an image for which `fast` is used on a CPU; a GPU gains most with small ones."""

    def __init__(
        self,
        network: nn.Module,
        num_classes: int | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        stride: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ModelError(f"mean={list(mean)}, std={list(std)}: give three numbers each, std above 0")
        if stride < 1:
            raise ModelError(f"stride={stride}: must be 1 or more")
        self.network = network
        self.num_classes = num_classes
        self.stride = stride
        self.name = name or _snake_case(type(network).__name__)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def __getstate__(self) -> dict[str, object]:
        # Engines belong to this process; a copy gets its own where one is wanted.
        return {key: value for key, value in vars(self).items() if key not in ("_prepared", "fast", "fast_from")}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W) in [0, 1]."""
        if self.windows is None or self.training:
            return self._run(images)
        return self._slide(images, self.windows)

    def _run(self, images: Tensor) -> Tensor:
        small = images.shape[-2] * images.shape[-1] < self.fast_from and not images.is_cuda
        if self.fast is None or self.training or small:
            return self.outputs(images)[0]
        return self.fast(images)

    def _slide(self, images: Tensor, windows: Windows) -> Tensor:
        (height, width), (window_height, window_width) = images.shape[-2:], windows.shape
        if height < window_height or width < window_width:
            larger = (len(images), 3, max(height, window_height), max(width, window_width))
            padded = self.mean.to(images.dtype).expand(larger).clone()
            padded[..., :height, :width] = images
            return self._slide(padded, windows)[..., :height, :width]
        grid = windows.grid(height, width)
        if len(grid) == 1:
            return self._run(images)
        sums, count = [], images.new_zeros(height, width)
        for top, left in grid:
            bottom, right = top + window_height, left + window_width
            logs = self._run(images[..., top:bottom, left:right]).log_softmax(1)
            # Finite, so that gradients are numbers where no window has been yet.
            nothing = torch.finfo(logs.dtype).min / 4
            sums.append(F.pad(logs, (left, width - right, top, height - bottom), value=nothing))
            count[top:bottom, left:right] += 1
        return reduce(torch.logaddexp, sums) - count.log()

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits, and those of the auxiliary head of networks that return one under the key `aux`."""
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        below, right = -height % self.stride, -width % self.stride
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        output = self.network(x)
        auxiliary = output.get("aux") if isinstance(output, dict) else None
        logits = [self._logits(output, x)] + ([] if auxiliary is None else [auxiliary])
        for number, small in enumerate(logits):
            if small.shape[-2:] != x.shape[-2:]:
                small = F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
            logits[number] = small[..., :height, :width]
        return logits[0], logits[1] if auxiliary is not None else None

    def _logits(self, output: object, x: Tensor) -> Tensor:
        """The logits in any of the usual forms of output; checked here, because later errors would be obscure."""
        if isinstance(output, dict):
            output = output.get("out", output.get("logits", output))
        if isinstance(output, tuple | list) and output:
            output = output[0]  # the logits come first, those of auxiliary heads after them
        output = getattr(output, "logits", output)
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[0] != x.shape[0]:
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelError(
                f"network '{self.name}' returned {given} for an input of shape {tuple(x.shape)}; "
                "expected logits of shape (B, classes, h, w)"
            )
        if self.num_classes is None:
            self.num_classes = output.shape[1]
        elif output.shape[1] != self.num_classes:
            raise ModelError(
                f"network '{self.name}' returned {output.shape[1]} classes, but num_classes is {self.num_classes}"
            )
        return output


def freeze(model: AnyModule) -> AnyModule:
    """Set a model to eval mode and its parameters to `requires_grad=False`, once and for all.

    Works on exported programs too, whose own `eval()` refuses (they are in eval form already).
    """
    for module in model.modules():
        module.training = False
    return model.requires_grad_(False)


@contextmanager
def without_engines(network: nn.Module) -> Iterator[None]:
    """Inside the `with` block, run the original networks, bypassing any engine attached earlier."""
    parts = [part for part in network.modules() if isinstance(part, SegmentationModel)]
    fast = [part.fast for part in parts]
    try:
        for part in parts:
            part.fast = None
        yield
    finally:
        for part, before in zip(parts, fast, strict=True):
            part.fast = before


def with_windows(network: SegmentationModel, windows: Windows | None) -> SegmentationModel:
    """Run the network on windows from now on; of an ensemble its members, which some attacks call one by one."""
    for member in getattr(network, "members", [network]):
        member.windows = windows
    return network


def as_segmentation_model(network: nn.Module, name: str | None = None) -> SegmentationModel:
    """`network` itself if it is a `SegmentationModel`, else wrapped as one that takes [0, 1] images as they are."""
    return network if isinstance(network, SegmentationModel) else SegmentationModel(network, name=name)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

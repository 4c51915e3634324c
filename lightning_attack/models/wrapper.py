"""`SegmentationModel`: any network as a function from [0, 1] images to logits of the same size."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.common.errors import UserError
from lightning_attack.common.labels import ABSTAINED
from lightning_attack.common.windows import Windows
from lightning_attack.models.chunks import in_chunks
from lightning_attack.models.initial import Initial
from lightning_attack.models.outputs import alike, as_logits, classes_are_last, described, fits, is_cut, main_output

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
            logits are taken too, and so is (B, h, w, C); h x w may be smaller than H x W. One channel is that of a
            binary network: its logit z becomes the logits [0, z] of two classes, background and foreground.
        num_classes: C; None means that it is read off the first output. 1 is taken as 2, see above.
        mean: mean of each colour in [0, 1], subtracted first.
        std: standard deviation of each colour, divided by; above 0.
        stride: height and width of the network's input are padded to multiples of it; 1 = no padding.
        name: name in tables and folders; the default is the network's class in snake_case.
        weights: file with trained weights of the network, a checkpoint of any of the usual forms: weights below
            `state_dict` or another key, names that begin with `module.`, `model.` or the like; None: as it is.
        weights_key: key in the file under which the weights are, such as `state_dict_ema`; None: the usual ones.

    Raises:
        ModelError: an argument is out of range, the weights do not fit, or the output is not logits of `num_classes`
            classes.

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
    is_worth: Callable[[Tensor], bool] | None = None
    """Whether `fast` is used for images on a CPU; None: for all. A GPU gains most with small ones."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, where they are known; an empty one stands for a class without a name."""
    runs_network = True
    """It runs `network` whole, on images; in other modules that may be the name of anything. Source transforms ask."""
    abstains = False
    """Whether it says of single pixels that their class is not certain, by equal logits for all classes."""
    defence: dict[str, object] | None = None
    """What a defended network is behind, as plain values: `seed` and `parts`, each with its `class` and settings."""
    undefended: SegmentationModel | None = None
    """The network inside a defended one."""
    _initial: Initial | None = None
    """Set where no trained weights were loaded, see `Initial`."""
    _classes_last: bool | None = None
    """Whether the network returns (B, h, w, C); None until its first output shows it."""
    _one_is_binary = True
    """Whether one channel is the logit of a binary network, to be made two classes."""
    _batch: tuple[int, int] | None = None
    """The least and the most images that the network takes at a time; None: any number."""
    _slow_is_said = False
    _cut_is_said = False

    def __init__(
        self,
        network: nn.Module,
        num_classes: int | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        stride: int = 1,
        name: str | None = None,
        weights: str | None = None,
        weights_key: str | None = None,
    ) -> None:
        super().__init__()
        if weights is None and weights_key is not None:
            raise ModelError(f"weights_key='{weights_key}' chooses among the weights of a file: give weights too")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ModelError(f"mean={list(mean)}, std={list(std)}: give three numbers each, std above 0")
        if stride < 1:
            raise ModelError(f"stride={stride}: must be 1 or more")
        if weights is not None:
            from lightning_attack.models.weights import load_weights, weights_path  # it imports this module

            load_weights(network, weights_path(weights), key=weights_key)
        self.network = network
        self.num_classes = 2 if num_classes == 1 and self._one_is_binary else num_classes
        self.stride = stride
        self.name = name or _snake_case(type(network).__name__)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def __getstate__(self) -> dict[str, object]:
        # Engines belong to this process; a copy gets its own where one is wanted.
        return {
            key: value for key, value in vars(self).items() if key not in ("_prepared", "_work", "fast", "is_worth")
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W) in [0, 1]."""
        if self.windows is None or self.training:
            return self._run(images)
        return self._slide(images, self.windows)

    def limit_batch(self, least: int, most: int) -> None:
        """From now on show the network at least and at most so many images at a time; results stay what they are."""
        self._batch = least, most

    @property
    def has_limited_batches(self) -> bool:
        """Whether `limit_batch` was called."""
        return self._batch is not None

    @property
    def least_batch(self) -> int:
        """The least number of images that the network takes at a time."""
        return 1 if self._batch is None else self._batch[0]

    def _run(self, images: Tensor) -> Tensor:
        if self._batch is None or self._batch[0] <= len(images) <= self._batch[1]:
            return self._run_batch(images)
        least, most = self._batch
        if not self._slow_is_said:
            self._slow_is_said = True
            warnings.warn(
                f"network '{self.name}' takes {least}{'' if least == most else f' to {most}'} image"
                f"{'s' * (most > 1)} at a time: other batches are run in such parts, with the same results, but slower."
                " A .pt2 file takes all batches if it is exported with torch.export.Dim.DYNAMIC as its first size",
                stacklevel=2,
            )
        return in_chunks(self._run_batch, images, least, most)

    def _run_batch(self, images: Tensor) -> Tensor:
        if self.fast is None or self.training:
            return self.outputs(images)[0]
        if self.is_worth is not None and not images.is_cuda and not self.is_worth(images):
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
        logits = self._sized(self._logits(output, x), x)[..., :height, :width]
        if not isinstance(auxiliary, Tensor) or auxiliary.ndim != 4:  # several, or scores of the whole image
            return logits, None
        auxiliary = as_logits(auxiliary, bool(self._classes_last), self._one_is_binary)
        return logits, self._sized(auxiliary, x)[..., :height, :width]

    def _sized(self, logits: Tensor, x: Tensor) -> Tensor:
        """The logits at the size of the network's input."""
        if logits.shape[-2:] == x.shape[-2:]:
            return logits
        if not torch.compiler.is_compiling() and not fits(logits.shape[-2:], x.shape[-2:], slack=2):
            raise ModelError(
                f"network '{self.name}' returned logits of {logits.shape[-2]} x {logits.shape[-1]} for an input of "
                f"{x.shape[-2]} x {x.shape[-1]}, which is no image of that shape made smaller\n"
                "height and width may be exchanged, or it was traced for another size; export it again, or set "
                "data.size and model.probe_size to that"
            )
        if not torch.compiler.is_compiling() and not self._cut_is_said and is_cut(logits.shape[-2:], x.shape[-2:]):
            self._cut_is_said = True
            warnings.warn(
                f"network '{self.name}' returned logits of {logits.shape[-2]} x {logits.shape[-1]} for an input of "
                f"{x.shape[-2]} x {x.shape[-1]}: are its convolutions without padding, so that it cuts a border off? "
                "The logits are stretched, which moves them; a network around it can pad them (F.pad) by what is cut",
                stacklevel=2,
            )
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def _logits(self, output: object, x: Tensor) -> Tensor:
        """The logits in any of the usual forms of output; checked here, because later errors would be obscure."""
        found = main_output(output)
        if (
            not isinstance(found, Tensor)
            or found.ndim != 4
            or found.shape[0] != x.shape[0]
            or not found.is_floating_point()
        ):
            raise ModelError(
                f"network '{self.name}' returned {described(found)} for an input of shape {tuple(x.shape)}; "
                "expected logits of shape (B, classes, h, w)\n"
                "alone, as 'out' or 'logits' of a dictionary or object, or first in a tuple; a binary one (B, 1, h, w)"
            )
        if found.device != x.device:
            raise ModelError(
                f"network '{self.name}' returned logits on the device {found.device} for an image on {x.device}\n"
                "take moves to a device, such as .cpu(), out of its forward: results stay on the device of the image"
            )
        logits = as_logits(found, self._has_classes_last(output, found, x), self._one_is_binary)
        if self.num_classes is None:
            self.num_classes = logits.shape[1]
        elif logits.shape[1] != self.num_classes:
            raise ModelError(
                f"network '{self.name}' returned {logits.shape[1]} classes, but num_classes is {self.num_classes}"
            )
        return logits

    def _has_classes_last(self, output: object, found: Tensor, x: Tensor) -> bool:
        """Where the classes are, decided by the first output that shows it."""
        # A program must not hold these questions: they would fix the sizes of its images.
        if self._classes_last is None and not torch.compiler.is_compiling():
            if (others := alike(output) - 1) and not self.training:
                warnings.warn(
                    f"network '{self.name}' returns {others + 1} maps of logits; the first is taken as its result. If "
                    "another one is, wrap the network in one that returns that alone",
                    stacklevel=2,
                )
            last = classes_are_last(found.shape, x.shape[-2:])
            if last is None and not self.training:
                last = self._seen_on_a_wider_image(found, x)
            self._classes_last = last
        return bool(self._classes_last)

    def _seen_on_a_wider_image(self, found: Tensor, x: Tensor) -> bool:
        """Where the classes are if one shape of images does not tell: the places of height and width change."""
        wide = torch.cat([x, x], -1).detach()
        try:
            with torch.no_grad():
                again = main_output(self.network(wide))
        except Exception:  # networks of one size raise whatever they like
            again = None
        last = classes_are_last(again.shape, wide.shape[-2:]) if isinstance(again, Tensor) and again.ndim == 4 else None
        if last is None:
            warnings.warn(
                f"network '{self.name}' returned {tuple(found.shape)} for an input of shape {tuple(x.shape)}: whether "
                "its classes come first or last cannot be seen; they are taken to come first, (B, classes, h, w)",
                stacklevel=2,
            )
        return bool(last)


def freeze(model: AnyModule) -> AnyModule:
    """Set a model to eval mode and its parameters to `requires_grad=False`, once and for all.

    Works on exported programs too, whose own `eval()` refuses (they are in eval form already).
    """
    for module in model.modules():
        module.training = False
    return model.requires_grad_(False)


def decide(network: nn.Module, logits: Tensor) -> Tensor:
    """The classes that a network predicts by its logits: the largest, or `ABSTAINED` where it abstains.

    Args:
        network: which gave the logits.
        logits: (B, C, H, W).

    Returns:
        (B, H, W) int64.

    Example:
        >>> decide(nn.Identity(), torch.tensor([[0.0, 1.0], [0.0, 2.0]]).view(1, 2, 1, 2)).tolist()
        [[[0, 1]]]
    """
    values, classes = logits.max(1)
    if not getattr(network, "abstains", False):
        return classes
    return classes.masked_fill(values == logits.min(1)[0], ABSTAINED)


def check_abstains(network: nn.Module, name: str) -> None:
    """Raise `ModelError` if a network has one inside that abstains: its equal logits would count as a choice."""
    if any(getattr(part, "abstains", False) for part in network.modules() if part is not network):
        raise ModelError(
            f"network '{name}' has one inside that abstains (Smoothed), which it would take for a choice of a "
            "class\nput Smoothed around it, in place of inside it"
        )


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
    """`network` itself if it is a `SegmentationModel`, else wrapped as one that takes [0, 1] images as they are.

    Raises:
        ModelError: it is no `nn.Module`.
    """
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"a network is a torch.nn.Module; given: {type(network).__name__}\n"
            "a class of yours inherits from it, a function that builds one ends in `return network`"
        )
    return network if isinstance(network, SegmentationModel) else SegmentationModel(network, name=name)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

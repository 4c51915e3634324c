"""`Attack`: what every attack is, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_attack.attacks.norms import LEVELS
from lightning_attack.attacks.random import Draws

IGNORE_INDEX = 255
"""Label of pixels that have no say."""

Model = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] -> logits (B, C, H, W). Usually an `nn.Module`."""

StepLog = Callable[[int, Mapping[str, Tensor]], None]
"""Called after each step with its number (from 0) and figures of it, each a tensor (B,) with one value per image."""


class Attack(ABC):
    """Images, labels and a model in; adversarial images out. A subclass writes `perturb`.

    Args:
        name: name in tables and folders.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def perturb(self, model: Model, images: Tensor, labels: Tensor, draws: Draws, log: StepLog) -> Tensor:
        """Adversarial images in [0, 1]; arguments are checked, the model is frozen, gradients are on."""

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int] | None = None,
        log: StepLog | None = None,
    ) -> Tensor:
        """Attack `model` on `images`.

        The model comes back as it was: its mode, what requires a gradient, the gradients, the hooks. While it is
        attacked it is in eval mode. An image without a labelled pixel comes back as it was.

        Args:
            model: images in [0, 1] to logits (B, C, H, W) of the same size.
            images: (B, 3, H, W), floating, in [0, 1].
            labels: (B, H, W), int64; 255 = ignored.
            seeds: one integer per image, from which all randomness of that image is drawn. Without it they are drawn
                from torch's global generator.
            log: called after each step, see `StepLog`.

        Returns:
            Adversarial images, shape and type of `images`, detached.

        Raises:
            ValueError: shapes, types or ranges are wrong.
            RuntimeError: called in inference mode, in which torch keeps no gradients.
        """
        _check(images, labels, seeds)
        if len(images) == 0:
            return images.detach()
        if seeds is None:
            seeds = torch.randint(2**62, (len(images),)).tolist()
        with _frozen(model), torch.enable_grad():
            adversarial = self.perturb(
                model, images.detach(), labels, Draws(seeds, images.device), log or (lambda step, figures: None)
            )
        labelled = (labels != IGNORE_INDEX).flatten(1).any(1).view(-1, 1, 1, 1)
        return torch.where(labelled, adversarial.detach(), images.detach())

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        """The adversarial images on the 8-bit grid (multiples of 1/255), inside the budget if the attack has one."""
        return (adversarial * LEVELS).round().clamp(0, LEVELS) / LEVELS

    def settings(self) -> object:
        """What defines the attack, as plain values and nested dictionaries, for reports."""
        return describe(self)


class NoAttack(Attack):
    """Return the images as they are: for clean figures, and to test everything around an attack.

    Example:
        >>> images = torch.full((1, 3, 2, 2), 0.5)
        >>> torch.equal(NoAttack()(nn.Identity(), images, torch.zeros(1, 2, 2, dtype=torch.int64)), images)
        True
    """

    def __init__(self) -> None:
        super().__init__("no_attack")

    def perturb(self, model: Model, images: Tensor, labels: Tensor, draws: Draws, log: StepLog) -> Tensor:
        return images


def describe(part: object) -> object:
    """A part and its settings as plain values: numbers and strings stay, objects become `{"class": ..., ...}`."""
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]
    return {"class": type(part).__name__} | {
        key: describe(value) for key, value in vars(part).items() if not key.startswith("_")
    }


@contextmanager
def _frozen(model: Model) -> Iterator[None]:
    """Eval mode and no gradients for weights, for a while.

    Flags are set by hand, not by `eval()`: exported programs refuse it, and each submodule gets its own flag back.
    """
    network = model if isinstance(model, nn.Module) else nn.Module()
    modules = [(module, module.training) for module in network.modules()]
    weights = [(weight, weight.requires_grad) for weight in network.parameters()]
    try:
        for module, _ in modules:
            module.training = False
        for weight, _ in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in modules:
            module.training = training
        for weight, requires_grad in weights:
            weight.requires_grad_(requires_grad)


def _check(images: Tensor, labels: Tensor, seeds: Sequence[int] | None) -> None:
    if torch.is_inference_mode_enabled() or images.is_inference():
        raise RuntimeError(
            "attacks need gradients, which torch.inference_mode() forbids; use torch.no_grad() around the call, or "
            "Trainer(inference_mode=False), and images that were not made in inference mode"
        )
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images are {tuple(images.shape)} {images.dtype}; expected (B, 3, H, W), floating, in [0, 1]")
    if labels.shape != (images.shape[0], *images.shape[2:]) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels are {tuple(labels.shape)} {labels.dtype}; expected {(images.shape[0], *images.shape[2:])} int64, "
            f"one class per pixel ({IGNORE_INDEX} = ignored)"
        )
    # 1e-6: what float32 arithmetic on [0, 1] images leaves behind. NaN fails the comparison too.
    low, high = (float(images.detach().min()), float(images.detach().max())) if images.numel() else (0.0, 1.0)
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(
            f"images range over [{low:.4g}, {high:.4g}]; expected [0, 1]. Divide 8-bit images by 255, and leave "
            "normalisation to the model (SegmentationModel)"
        )
    if seeds is not None and len(seeds) != len(images):
        raise ValueError(f"{len(seeds)} seeds for {len(images)} images; give one per image")

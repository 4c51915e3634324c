"""`Attack`: what every attack is, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.norms import LEVELS
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.attacks.random import Draws
from lightning_attack.common.labels import IGNORE_INDEX

Model = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] -> logits (B, C, H, W). Usually an `nn.Module`."""

StepLog = Callable[[int, Mapping[str, Tensor]], None]
"""Called after each step with its number (from 0) and figures of it, each a tensor (B,) with one value per image."""

Watch = Callable[[int, Tensor], None]
"""Called after each step with its number (from 0) and what the attack would return if that step were its last."""


@dataclass(frozen=True)
class Problem:
    """One batch to attack: what `Attack.perturb` is given.

    Attributes:
        model: images in [0, 1] to logits; frozen.
        images: (B, 3, H, W), clean, in [0, 1].
        labels: (B, H, W) int64, 255 = ignored; in a targeted attack the wanted classes.
        draws: random numbers, image by image.
        log: to be called after each step.
        targeted: whether the labels are wanted.
        region: (B, 1, H, W) bool, where images may change; None = everywhere.
        watch: to be shown the images of each step, (B, 3, H, W) inside the budget; None = nobody looks.
        clean_logits: (B, C, H, W), what the model says about the clean images; None = not known yet.
    """

    model: Model
    images: Tensor
    labels: Tensor
    draws: Draws
    log: StepLog
    targeted: bool = False
    region: Tensor | None = None
    watch: Watch | None = None
    clean_logits: Tensor | None = None

    def predict(self, images: Tensor) -> Prediction:
        """What the model says about images."""
        return Prediction(self.model(images), self.labels, self.targeted)

    def select(self, rows: Tensor) -> Problem:
        """The problem of some of the images, whose random numbers go on where they stand."""
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            draws=self.draws.select(rows.tolist()),
            region=None if self.region is None else self.region[rows],
            clean_logits=None if self.clean_logits is None else self.clean_logits[rows],
        )

    def show(self, step: int, images: Tensor) -> None:
        """Let those who watch see the images after a step."""
        if self.watch is not None:
            self.watch(step, images)

    def inside(self, images: Tensor) -> Tensor:
        """Images that differ from the clean ones inside the region only."""
        return images if self.region is None else torch.where(self.region, images, self.images)

    def inside_only(self, gradient: Tensor) -> Tensor:
        """The gradient with zeros outside of the region."""
        return gradient if self.region is None else gradient * self.region


class Attack(ABC):
    """Images, labels and a model in; adversarial images out. A subclass writes `perturb`.

    Args:
        name: name in tables and folders.
    """

    watchable = False
    """Whether it shows the images of each step to `Problem.watch`, from step 1 to its last; it then has `steps`."""
    targetable = True
    """Whether it can pull pixels to wanted classes."""
    mixes = False
    """Whether it mixes images: with `partners` of the data set, or without these with others of the batch, of which it
    then needs at least one."""

    def __init__(self, name: str) -> None:
        self.name = name

    clean_passes = 0
    """How many forward passes of the clean images it makes to compare with them, which `clean_logits` saves."""

    @abstractmethod
    def perturb(self, problem: Problem) -> Tensor:
        """Adversarial images in [0, 1]; the problem is checked, the model is frozen, gradients are on."""

    def check_model(self, model: Model) -> None:  # noqa: B027 (most attacks need nothing)
        """Raise `ValueError` if the attack needs something that the model lacks, such as a layer of some name."""

    def check_watchable(self) -> None:
        """Raise `AttackError` if the attack cannot be watched step by step."""
        if not self.watchable:
            raise AttackError(
                f"{self.name} cannot be watched step by step: it has no steps inside a budget, or they are not "
                "those of all images, or its result is put together at the end"
            )

    def check_targetable(self) -> None:
        """Raise `ValueError` if the attack cannot pull pixels to wanted classes."""
        if not self.targetable:
            raise ValueError(f"{self.name} cannot be targeted: it looks at no labels, or has no targeted mode")

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int] | None = None,
        log: StepLog | None = None,
        targeted: bool = False,
        region: Tensor | None = None,
        partners: Tensor | None = None,
        watch: Watch | None = None,
        clean_logits: Tensor | None = None,
    ) -> Tensor:
        """Attack `model` on `images`.

        The model comes back as it was: its mode, what requires a gradient, the gradients, the hooks. While it is
        attacked it is in eval mode. An image without a labelled pixel comes back as it was.

        Args:
            model: images in [0, 1] to logits (B, C, H, W) of the same size.
            images: (B, 3, H, W), floating, in [0, 1].
            labels: (B, H, W), int64; 255 = ignored. The true classes, or with `targeted` the wanted ones.
            seeds: one integer per image, from which all randomness of that image is drawn. Without it they are drawn
                from torch's global generator.
            log: called after each step, see `StepLog`.
            targeted: pull pixels to the classes of `labels` instead of away from them.
            region: (B, H, W) bool, where images may change; None = everywhere.
            partners: (B, P, 3, H, W), for attacks that mix images: P other images for each.
            watch: called after each step with its images, see `Watch`; they must not be written to.
            clean_logits: (B, C, H, W), what the model says about `images`, for attacks that compare with it; None:
                they ask the model.

        Returns:
            Adversarial images, shape and type of `images`, detached.

        Raises:
            ValueError: shapes, types or ranges are wrong, the attack cannot be targeted or watched, or it needs
                something that the model lacks.
            RuntimeError: called in inference mode, in which torch keeps no gradients.
        """
        _check(images, labels, seeds, region)
        if targeted:
            self.check_targetable()
        if watch is not None:
            self.check_watchable()
        if self.mixes and len(images) == 1 and partners is None:
            raise AttackError(f"{self.name} mixes the images of a batch; it needs 2 or more, not 1")
        self.check_model(model)
        if len(images) == 0:
            return images.detach()
        if seeds is None:
            seeds = torch.randint(2**62, (len(images),)).tolist()
        changeable = (labels != IGNORE_INDEX).flatten(1).any(1).view(-1, 1, 1, 1)
        region = None if region is None else region[:, None]
        log = log or (lambda step, figures: None)
        clean = images.detach()

        def changed(adversarial: Tensor) -> Tensor:
            """The images that may change, where they may."""
            return torch.where(changeable if region is None else changeable & region, adversarial.detach(), clean)

        shown = None if watch is None else lambda step, adversarial: watch(step, changed(adversarial))
        with _frozen(model), torch.enable_grad():
            draws = Draws(seeds, images.device, partners)
            problem = Problem(model, clean, labels, draws, log, targeted, region, shown, clean_logits)
            return changed(self.perturb(problem))

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        """The adversarial images on the 8-bit grid (multiples of 1/255), inside the budget if the attack has one."""
        return (adversarial * LEVELS).round().clamp(0, LEVELS) / LEVELS

    def settings(self) -> object:
        """What defines the attack, as plain values and nested dictionaries, for reports."""
        return describe(self)


class NoAttack(Attack):
    """Return the images as they are: for clean figures, and to score images that were attacked elsewhere.

    Args:
        name: name in tables and folders.

    Example:
        >>> images = torch.full((1, 3, 2, 2), 0.5)
        >>> torch.equal(NoAttack()(nn.Identity(), images, torch.zeros(1, 2, 2, dtype=torch.int64)), images)
        True
    """

    def __init__(self, name: str = "no_attack") -> None:
        super().__init__(name)

    def perturb(self, problem: Problem) -> Tensor:
        return problem.images


def describe(part: object) -> object:
    """A part and its settings as plain values: numbers and strings stay, objects become `{"class": ..., ...}`."""
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]
    if isinstance(part, Mapping):
        return {key: describe(value) for key, value in part.items()}
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


def _check(images: Tensor, labels: Tensor, seeds: Sequence[int] | None, region: Tensor | None) -> None:
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
    if region is not None and (region.shape != labels.shape or region.dtype != torch.bool):
        raise ValueError(
            f"region is {tuple(region.shape)} {region.dtype}; expected {tuple(labels.shape)} bool, true where images "
            "may change"
        )

"""`Attack`, the base class of all attacks, and `Problem`, the batch that it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.papers import PAPERS
from lightning_attack.attacks.prediction import Prediction
from lightning_attack.attacks.random import Draws
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.common.pixels import LEVELS, from_levels
from lightning_attack.engine.plain import plain

Model = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] -> logits (B, C, H, W). Usually an `nn.Module`."""

StepLog = Callable[[int, Mapping[str, Tensor]], None]
"""Called after each step with its number (from 0) and its figures by name, each (B,) with one value per image."""

Watch = Callable[[int, Tensor], None]
"""Called after each step with its number (from 0) and the images that the attack would return if it ended there."""


@dataclass(frozen=True)
class Problem:
    """One batch to attack, with all that `Attack.perturb` may need.

    Attributes:
        model: images in [0, 1] to logits; frozen.
        images: (B, 3, H, W), clean, in [0, 1].
        labels: (B, H, W) int64, 255 = ignored; in a targeted attack the wanted classes.
        draws: random numbers, image by image.
        log: to be called after each step, see `StepLog`.
        targeted: whether the labels are the wanted classes.
        region: (B, 1, H, W) bool, where images may change; None = everywhere.
        watch: to be called after each step with its images, (B, 3, H, W) inside the budget; None = nobody watches.
        clean_logits: (B, C, H, W), the model's logits of the clean images; None = not computed yet.
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
        """The model's prediction for images (B, 3, H, W)."""
        return Prediction(self.model(images), self.labels, self.targeted)

    def select(self, rows: Tensor) -> Problem:
        """The same problem for some of the images; their streams of random numbers continue where they are."""
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            draws=self.draws.select(rows.tolist()),
            region=None if self.region is None else self.region[rows],
            clean_logits=None if self.clean_logits is None else self.clean_logits[rows],
        )

    def show(self, step: int, images: Tensor) -> None:
        """Pass the images of a step to `watch`, if anybody watches."""
        if self.watch is not None:
            self.watch(step, images)

    def inside(self, images: Tensor) -> Tensor:
        """The images inside the region, the clean images outside of it."""
        return images if self.region is None else torch.where(self.region, images, self.images)

    def inside_only(self, gradient: Tensor) -> Tensor:
        """The gradient, set to zero outside of the region."""
        return gradient if self.region is None else gradient * self.region


class Attack(ABC):
    """Images, labels and a model in; adversarial images out. A subclass writes `perturb`.

    What an attack can do and needs is said by read-only properties, from `watchable` to `clean_passes`. A subclass for
    which they are fixed may write them as class attributes (`watchable = True`).

    Args:
        name: name in tables and folders.
    """

    _display_name: str | None = None
    _papers: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def display_name(self) -> str:
        """What papers call it, such as `TranSegPGD + MI-DI-TI`; where nothing else is said, its `name`."""
        return self._display_name or self.name

    @property
    def citations(self) -> Mapping[str, str]:
        """The papers that it comes from: BibTeX entries by their keys."""
        return {key: PAPERS[key] for key in self._papers}

    @property
    def watchable(self) -> bool:
        """Whether it shows the images of each step to `Problem.watch`, from step 1 to the last; it then has `steps`."""
        return False

    @property
    def targetable(self) -> bool:
        """Whether it can pull pixels to wanted classes."""
        return True

    @property
    def mixes(self) -> bool:
        """Whether it mixes images: with `partners` of the data set, else with another image of the same batch."""
        return False

    @property
    def needs_members(self) -> bool:
        """Whether its source must be an ensemble: a model with `members`, `weights` and `by`."""
        return False

    @property
    def clean_passes(self) -> int:
        """Number of forward passes of the clean images that it saves if it is given their logits, `clean_logits`."""
        return 0

    @abstractmethod
    def perturb(self, problem: Problem) -> Tensor:
        """Adversarial images in [0, 1]. The problem has been checked, the model is frozen, gradients are enabled."""

    def check_model(self, model: Model) -> None:  # noqa: B027 (most attacks need nothing)
        """Raise `ValueError` if the attack needs something that the model lacks, such as a layer of some name."""

    def try_source(self, model: Model, images: Tensor) -> None:  # noqa: B027 (as above)
        """Raise `AttackError` if the attack cannot run the model as it needs to, found by running it on an image.

        Args:
            model: frozen.
            images: (1, 3, H, W), any image.
        """

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
        *,
        log: StepLog | None = None,
        targeted: bool = False,
        region: Tensor | None = None,
        partners: Tensor | None = None,
        watch: Watch | None = None,
        clean_logits: Tensor | None = None,
    ) -> Tensor:
        """Attack `model` on `images`.

        During the attack the model is in eval mode and its weights are frozen; afterwards its mode, `requires_grad`,
        gradients and hooks are what they were before. An image without a labelled pixel comes back unchanged.

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
            clean_logits: (B, C, H, W), the model's logits of `images`, for attacks that compare with them; None = such
                attacks compute them.

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
        images = images.detach()
        if len(images) == 0:
            return images
        if seeds is None:
            seeds = torch.randint(2**62, (len(images),)).tolist()
        problem = Problem(
            model=model,
            images=images,
            labels=labels,
            draws=Draws(seeds, images.device, partners),
            log=log or _no_log,
            targeted=targeted,
            region=None if region is None else region[:, None],
            watch=watch,
            clean_logits=clean_logits,
        )
        with frozen(model), torch.enable_grad():
            return self.solve(problem)

    def solve(self, problem: Problem) -> Tensor:
        """`perturb`, with changes kept only where they are allowed: in the region, of images with a labelled pixel.

        For attacks that run other attacks on problems of their own; everybody else calls the attack itself, which
        checks its arguments and freezes the model.
        """
        images, watch = problem.images, problem.watch
        allowed = (problem.labels != IGNORE_INDEX).flatten(1).any(1).view(-1, 1, 1, 1)
        if problem.region is not None:
            allowed = allowed & problem.region

        def keep_allowed(adversarial: Tensor) -> Tensor:
            return torch.where(allowed, adversarial.detach(), images)

        if watch is not None:
            shown = watch
            problem = replace(problem, watch=lambda step, adversarial: shown(step, keep_allowed(adversarial)))
        return keep_allowed(self.perturb(problem))

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        """The adversarial images on the 8-bit grid (multiples of 1/255), inside the budget if the attack has one."""
        return from_levels((adversarial * LEVELS).round().clamp(0, LEVELS))

    def settings(self) -> object:
        """The settings that define the attack, as numbers, strings, lists and nested dictionaries, for reports."""
        return describe(self)


class NoAttack(Attack):
    """Returns the images unchanged: for clean figures, and to score images that were attacked elsewhere.

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
    """An object and its settings for JSON: numbers and strings stay, objects become `{"class": ..., ...}`."""

    def of_object(one: object) -> dict[str, object]:
        settings = getattr(one, "__dict__", {})
        return {"class": type(one).__name__} | {
            key: describe(value) for key, value in settings.items() if key[0] != "_"
        }

    return plain(part, of_object)


def _no_log(step: int, figures: Mapping[str, Tensor]) -> None:
    """Step log that keeps nothing."""


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """Put a model into eval mode with frozen weights for the length of a `with` block.

    Flags are set one by one, not by `eval()`: exported programs refuse it, and each submodule gets its own flag back.
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

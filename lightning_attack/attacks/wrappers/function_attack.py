"""`FunctionAttack`: a function of one's own, or of another repository, in the place of an attack."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Model, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.wrappers.global_seed import global_seed
from lightning_attack.common.imports import imported
from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.common.pixels import Pixels, in_levels

_ROUNDING = 1e-6
"""What float32 arithmetic leaves behind."""


class FunctionAttack(Attack):
    """Any function of a model, images and labels that returns adversarial images, compared like the attacks here.

        adversarial = function(model, images, labels, **settings)

    `model` gives logits (1, C, H, W) of `images`, (1, 3, H, W) in [0, 1]; `labels` are (1, H, W) int64, 255 = ignored.
    A function that has an argument `targeted` is given it: whether `labels` are wanted classes. Images go one by one,
    and the global random generators of torch, Python and numpy are set from the image's own seed: results do not depend
    on batches. An image that leaves the budget or [0, 1] is an error, as are those of another shape; nothing is
    repaired in silence. An image without a labelled pixel is not given to the function.

    Args:
        function: the function, or the path by which it can be imported, such as `my_attack.attack`.
        eps: L-inf radius of the budget, of [0, 1] pixels: a number or a fraction such as `8/255`.
        settings: further arguments of the function.
        name: name in tables and folders; None = the function's.

    Raises:
        ValueError: there is no such function, it does not take these settings, or `eps` is out of range.
        AttackError: when called: the result is not an image inside the budget.

    Example:
        >>> def brighter(model, images, labels, by=0.1):
        ...     return (images + by).clamp(0, 1)
        >>> attack = FunctionAttack(brighter, eps=51 / 255, settings={"by": 0.2})
        >>> attack(torch.nn.Identity(), torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)).flatten()
        tensor([0.2000, 0.2000, 0.2000])
    """

    def __init__(
        self,
        function: str | Callable[..., Tensor],
        eps: Pixels = "8/255",
        settings: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self._call = _find(function) if isinstance(function, str) else function
        called = getattr(self._call, "__name__", type(self._call).__name__)
        super().__init__(name or called)
        self.function = function if isinstance(function, str) else f"{self._call.__module__}.{called}"
        self.norm, self.arguments = Linf(eps), dict(settings or {})
        self._takes_targeted = "targeted" in _parameters(self._call, self.function, self.arguments)

    @property
    def targetable(self) -> bool:
        return self._takes_targeted

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        return self.norm.quantize(images, adversarial)

    def perturb(self, problem: Problem) -> Tensor:
        return torch.cat([self._one(problem, number) for number in range(len(problem.images))])

    def _one(self, problem: Problem, number: int) -> Tensor:
        this = slice(number, number + 1)
        image, labels = problem.images[this], problem.labels[this]
        if bool((labels == IGNORE_INDEX).all()):
            return image  # of no pixel the mean loss is NaN
        more = {"targeted": problem.targeted} if self._takes_targeted else {}
        model: Model = problem.model
        with global_seed(problem.draws.seeds[number], image.device):
            found = self._call(model, image.clone(), labels.clone(), **self.arguments, **more)
        if not isinstance(found, Tensor) or found.shape != image.shape or not found.is_floating_point():
            what = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise AttackError(
                f"'{self.function}' returned {what} for images {tuple(image.shape)}; expected images of the "
                "same shape, floating, in [0, 1]"
            )
        found = found.detach().to(image)
        low, high, change = float(found.min()), float(found.max()), float((found - image).abs().max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING and change <= self.norm.eps + _ROUNDING):
            raise AttackError(
                f"'{self.function}' returned values in [{low:.4g}, {high:.4g}] that differ from the image by up to "
                f"{in_levels(change)}; expected [0, 1] and at most eps={in_levels(self.norm.eps)}"
            )
        return (image + self.norm.project(found - image)).clamp(0, 1)


def _find(path: str) -> Callable[..., Tensor]:
    try:
        found = imported(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"function='{path}' cannot be imported ({error}); expected such as my_attack.attack"
        ) from error
    if not callable(found):
        raise ValueError(f"function='{path}' is no function; expected attack(model, images, labels)")
    return found  # type: ignore[no-any-return]


def _parameters(function: Callable[..., Tensor], path: str, settings: Mapping[str, Any]) -> list[str]:
    """The names of the function's arguments; an error if it cannot be called with these settings."""
    signature = inspect.signature(function)
    try:
        signature.bind(None, None, None, **settings)
    except TypeError as error:
        raise ValueError(
            f"'{path}' cannot be called as function(model, images, labels, **settings): {error}; its arguments are "
            f"{', '.join(signature.parameters)}"
        ) from error
    return list(signature.parameters)

"""`Given`: adversarial images that were made elsewhere, in the place of an attack."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Model, NoAttack, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.norms import Linf, Norm
from lightning_attack.attacks.wrappers.per_window import PerWindow


class Given(Attack):
    """Return adversarial images that were made elsewhere, so that they are scored like those of an attack.

    In a run each batch brings its images (`adversarial`; on the command line `data.adversarial_root`). In Python
    `with_images` sets them. They are returned as they are, also where labels are ignored or outside of a region.

    Args:
        name: name in tables and folders.

    Raises:
        AttackError: when called without images, or with images that are not (B, 3, H, W) in [0, 1] like the clean ones.

    Example:
        >>> clean, theirs = torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.25)
        >>> attack = Given("theirs").with_images(theirs, eps=51 / 255)
        >>> attack(torch.nn.Identity(), clean, torch.zeros(1, 1, 1, dtype=torch.int64)).flatten().tolist()
        [0.25, 0.25, 0.25]
        >>> attack.quantize(clean, theirs).flatten()     # 0.25 is 63.75 levels; the budget allows 51
        tensor([0.2000, 0.2000, 0.2000])
    """

    _images: Tensor | None = None
    _budget: Norm | None = None

    def __init__(self, name: str = "given") -> None:
        super().__init__(name)

    def with_images(self, images: Tensor, eps: float | None = None) -> Given:
        """A copy that returns these images.

        Args:
            images: (B, 3, H, W), floating, in [0, 1].
            eps: L-inf radius inside which `quantize` rounds, of [0, 1] pixels; None: to the nearest level.
        """
        bound = copy(self)
        bound._images, bound._budget = images, None if eps is None else Linf(eps)
        return bound

    def __call__(self, model: Model, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The given images; what all attacks check is checked, and the model is not run."""
        super().__call__(model, images, *args, **kwargs)
        # Not what the base class returns: it puts back clean pixels where an attack may not change them.
        return self._checked(images)

    def perturb(self, problem: Problem) -> Tensor:
        return self._checked(problem.images)

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        if self._budget is None:
            return super().quantize(images, adversarial)
        return self._budget.quantize(images, adversarial)

    def _checked(self, clean: Tensor) -> Tensor:
        if self._images is None:
            raise AttackError(
                f"'{self.name}' scores adversarial images that were made elsewhere, and there are none: give "
                "--data.adversarial_root=FOLDER, or in Python the key 'adversarial' in each batch"
            )
        if self._images.shape != clean.shape or not self._images.is_floating_point():
            raise AttackError(
                f"adversarial images are {tuple(self._images.shape)} {self._images.dtype}; expected "
                f"{tuple(clean.shape)}, floating, in [0, 1], like the clean ones"
            )
        low, high = (float(value) for value in torch.aminmax(self._images.detach()))
        if low < -1e-6 or high > 1 + 1e-6:  # NaN is left to the one who knows the names of the images
            raise AttackError(
                f"adversarial images range over [{low:.4g}, {high:.4g}]; expected [0, 1]: divide 8-bit images by 255"
            )
        return self._images.detach()


def takes_given(attack: Attack) -> bool:
    """Whether an attack makes no images of its own, so that the data may bring adversarial ones.

    Example:
        >>> from lightning_attack.attacks import pgd
        >>> takes_given(Given()), takes_given(NoAttack()), takes_given(pgd())
        (True, True, False)
    """
    return isinstance(attack.attack if isinstance(attack, PerWindow) else attack, Given | NoAttack)


def check_given(attack: Attack, brought: bool) -> None:
    """Check that the attack and the data agree on who makes the adversarial images.

    Args:
        attack: the attack of the run.
        brought: whether the data brings adversarial images.

    Raises:
        AttackError: both make them, or neither does.
    """
    if brought and not takes_given(attack):
        raise AttackError(
            f"the data brings adversarial images, and '{attack.name}' would make others; give "
            "--model.attack=configs/attacks/no_attack.yaml (and a name: --model.attack.name=NAME), or in Python Given()"
        )
    if isinstance(attack, Given) and not brought and attack._images is None:
        attack._checked(torch.empty(0))


def attack_of_batch(attack: Attack, images: Tensor | None, eps: float | None = None) -> Attack:
    """The attack of one batch: that of the run, or `Given` with the adversarial images that the batch brings.

    Args:
        attack: the attack of the run.
        images: the adversarial images of the batch, (B, 3, H, W) in [0, 1]; None: it brings none.
        eps: L-inf radius inside which they are rounded to 8 bits; None: to the nearest level.

    Raises:
        AttackError: see `check_given`.
    """
    check_given(attack, images is not None)
    return attack if images is None else Given(attack.name).with_images(images, eps)

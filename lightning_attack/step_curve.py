"""`StepCurve`: how well the other networks are fooled after 5, 10, 15, ... steps of an attack, in the run itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack
from lightning_attack.attacks.errors import AttackError
from lightning_attack.metrics import confusion_matrices

POINTS = 10
"""About how many points a curve has, where nothing else is said."""


@dataclass(frozen=True)
class StepCurve:
    """The steps of an attack after which its images are scored.

    Attributes:
        steps: numbers of steps, rising; the last is the attack's own last, whose images are its result.

    Example:
        >>> from lightning_attack.attacks import pgd
        >>> StepCurve.of(pgd(steps=12), every=5).steps
        (5, 10, 12)
        >>> StepCurve.of(pgd(steps=40)).steps
        (4, 8, 12, 16, 20, 24, 28, 32, 36, 40)
    """

    steps: tuple[int, ...]

    @classmethod
    def of(cls, attack: Attack, every: int | None = None) -> StepCurve:
        """Every so many steps of an attack, and its last; None: about ten points.

        Raises:
            AttackError: every < 1, or the attack cannot be watched step by step.
        """
        if every is not None and every < 1:
            raise AttackError(f"curve_every={every}: must be 1 or more (or null: no curve)")
        attack.check_watchable()
        last: int = attack.steps  # type: ignore[attr-defined]
        every = every or max(1, last // POINTS)
        return cls((*range(every, last, every), last))

    def watch(self) -> Watched:
        """What is to see the steps of one batch."""
        return Watched(self.steps[:-1])


@dataclass
class Watched:
    """The images after some steps of one batch; given to an attack as `watch`.

    Attributes:
        wanted: numbers of steps.
        images: for each of them that was seen the images, (B, 3, H, W).
    """

    wanted: Sequence[int]
    images: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, step: int, images: Tensor) -> None:
        if step + 1 in self.wanted:
            self.images[step + 1] = images

    def each(self) -> list[Tensor]:
        """The images after the wanted steps.

        Raises:
            AttackError: the attack did not show them all.
        """
        missing = [step for step in self.wanted if step not in self.images]
        if missing:
            raise AttackError(f"the attack did not show its images after step {missing[0]} (Problem.show)")
        return [self.images[step] for step in self.wanted]


def count_curve(classes: Sequence[Sequence[Tensor]], labels: Tensor, num_classes: int) -> Tensor:
    """Confusion matrices along the curve, (B, networks, steps, C, C) int64.

    Args:
        classes: for each network what it predicts after each step, (B, H, W).
        labels: (B, H, W), 255 = ignored.
        num_classes: C.

    Example:
        >>> labels = torch.tensor([[[0, 1]]])
        >>> count_curve([[labels, 1 - labels]], labels, 2).tolist()
        [[[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]]]
    """
    counts = [torch.stack([confusion_matrices(one, labels, num_classes) for one in each], 1) for each in classes]
    return torch.stack(counts, 1)

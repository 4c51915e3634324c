"""`StepCurve`: after which steps of an attack its images are scored too; `WatchedSteps`: those images of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack
from lightning_attack.attacks.errors import AttackError
from lightning_attack.metrics import confusion_matrices

POINTS = 10
"""About how many points a curve has, unless somebody says after how many steps."""


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
    def of(cls, attack: Attack, every: int | Literal["auto"] = "auto") -> StepCurve:
        """Every so many steps of an attack, and its last; `auto`: about ten points.

        Raises:
            AttackError: every < 1, or the attack cannot be watched step by step.
        """
        if every != "auto" and (not isinstance(every, int) or every < 1):
            raise AttackError(f"curve_every={every}: must be 1 or more, or auto (or null: no curve)")
        try:
            attack.check_watchable()
        except AttackError as error:
            raise AttackError(f"no curve over the steps: {error} (or leave out --curve and curve_every)") from error
        last: int = attack.steps  # type: ignore[attr-defined]
        between = max(1, last // POINTS) if every == "auto" else every
        return cls((*range(between, last, between), last))

    def watch(self) -> WatchedSteps:
        """For one batch, what the attack is to show its images to."""
        return WatchedSteps(self.steps[:-1])


@dataclass
class WatchedSteps:
    """The images after some steps of the attack on one batch; given to the attack as `watch`.

    Attributes:
        wanted: numbers of steps, from 1.
        images: for each of these steps that is over its images, (B, 3, H, W).
    """

    wanted: Sequence[int]
    images: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, step: int, images: Tensor) -> None:
        if step + 1 in self.wanted:
            self.images[step + 1] = images

    def count(
        self,
        classes: Callable[[str, Tensor], Tensor],
        saved: Callable[[Tensor], Tensor],
        last: Mapping[str, Tensor],
        labels: Tensor,
        num_classes: int,
        abstains: bool = False,
    ) -> Tensor:
        """Confusion matrices along the curve, (B, networks, steps, C, C) int64.

        With `abstains` there is one column more, see `metrics.confusion_matrices`.

        Args:
            classes: gives the classes (B, H, W) that a network, by name, predicts for images.
            saved: gives images as they would be saved.
            last: for each network its predictions after the last step, which are known already.
            labels: (B, H, W), 255 = ignored.
            num_classes: C.
            abstains: whether a network may abstain.

        Raises:
            AttackError: the attack did not show all the steps.

        Example:
            >>> labels, images = torch.tensor([[[0, 1]]]), torch.zeros(1, 3, 1, 2)
            >>> watched = WatchedSteps([1])
            >>> watched(0, images)
            >>> counts = watched.count(lambda name, one: labels, lambda one: one, {"a": 1 - labels}, labels, 2)
            >>> counts.tolist()
            [[[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]]]
        """
        missing = [step for step in self.wanted if step not in self.images]
        if missing:
            raise AttackError(f"the attack did not show its images after step {missing[0]} (Problem.show)")
        kept = [saved(self.images[step]) for step in self.wanted]
        counts = [
            torch.stack([confusion_matrices(one, labels, num_classes, abstains=abstains) for one in predicted], 1)
            for predicted in ([*(classes(name, one) for one in kept), last[name]] for name in last)
        ]
        return torch.stack(counts, 1)

"""`Wrapper`: base class of attacks that run other attacks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from lightning_attack.attacks.base import Attack, Model


class Wrapper(Attack):
    """An attack that runs others: it needs what any of them needs, and can do what all of them can.

    It cannot be watched step by step: the steps of its attacks are not steps of its own result.
    """

    @property
    @abstractmethod
    def wrapped(self) -> Sequence[Attack]:
        """The attacks that it runs, one or more."""

    @property
    def targetable(self) -> bool:
        return all(attack.targetable for attack in self.wrapped)

    @property
    def mixes(self) -> bool:
        return any(attack.mixes for attack in self.wrapped)

    @property
    def needs_members(self) -> bool:
        return any(attack.needs_members for attack in self.wrapped)

    @property
    def clean_passes(self) -> int:
        return sum(attack.clean_passes for attack in self.wrapped)

    def check_model(self, model: Model) -> None:
        for attack in self.wrapped:
            attack.check_model(model)

    def try_source(self, model: Model, images: Tensor) -> None:
        for attack in self.wrapped:
            attack.try_source(model, images)

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        return self.wrapped[0].quantize(images, adversarial)

"""`StartFrom`: an attack whose first step begins at a universal perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from torch import Tensor

from lightning_attack.attacks.base import Attack, Problem
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.universal import UniversalPerturbation
from lightning_attack.attacks.wrappers.base import Wrapper


class StartFrom(Wrapper):
    """Runs an attack from each image with a universal perturbation on it, not from the image or a random point.

        x_0 = clamp(x + project(spread(delta)), 0, 1),   then the steps of the attack

    Args:
        attack: one on the common loop, or another with its start (`APGD`, `PatchWise`, `SVRE`), without `random_start`.
        file: of the perturbation, see `UniversalPerturbation`; of a radius up to the attack's.

    Raises:
        ValueError: the attack has no such start or a random one, its norm is another one than L-inf, or the file is
            none of a perturbation or has a larger radius.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from lightning_attack.attacks import bim
        >>> from lightning_attack.attacks.universal import Universal
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "bright.pt"
        ...     Universal(torch.full((3, 1, 1), 0.1), 0.1, "tile", {}).save(file)
        ...     attack = StartFrom(bim(eps=0.1, steps=1, step_size=0.05), str(file))
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)        # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> images, labels = torch.full((1, 3, 1, 2), 0.5), torch.tensor([[[0, 1]]])
        >>> attack(model, images, labels)[0, 0]       # 0.6, then a step: to the dark; it is at the border
        tensor([[0.5500, 0.6000]])
    """

    def __init__(self, attack: Attack, file: str) -> None:
        super().__init__(attack.name)
        self._display_name, self._papers = attack._display_name, attack._papers
        if not isinstance(attack, IterativeAttack):
            raise ValueError(f"{attack.name} has a start of its own; StartFrom takes attacks on the common loop")
        if attack.norm.name != "linf":
            raise ValueError(f"{attack.name} has the norm {attack.norm.name}; universal perturbations are of linf")
        if attack.random_start:
            raise ValueError(f"{attack.name} starts at a random point; set its random_start to false")
        self.attack, self.file = attack, file
        universal = UniversalPerturbation(file, attack.norm.eps)
        self.sha256 = universal.sha256
        self._papers = tuple(dict.fromkeys((*attack._papers, *universal._papers)))
        self._started = _from(attack, universal)

    @property
    def wrapped(self) -> Sequence[Attack]:
        return [self.attack]

    @property
    def watchable(self) -> bool:
        return self.attack.watchable

    @property
    def steps(self) -> int:
        """Number of steps, as of the attack."""
        return self.attack.steps

    @property
    def norm(self) -> Any:
        """The budget, as of the attack."""
        return self.attack.norm

    def perturb(self, problem: Problem) -> Tensor:
        return self._started.perturb(problem)


def _from(attack: IterativeAttack, universal: UniversalPerturbation) -> IterativeAttack:
    """The attack with another start."""

    def start(problem: Problem) -> Tensor:
        images = problem.images
        return problem.inside((images + attack.norm.project(universal.added(images) - images)).clamp(0, 1))

    started = copy(attack)
    started.start = start  # type: ignore[method-assign]
    return started

"""`UntilFooled`: images leave the batch as soon as all of their pixels are fooled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Model, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.loops.gradient import loss_members
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.wrappers.base import Wrapper


class UntilFooled(Wrapper):
    """Runs an attack, and takes images out of the batch once no labelled pixel of theirs is predicted right any more.

    For objectives that use only pixels which are still right (`MaskedCrossEntropy`, `FoolAllPixels(gamma=0)`, ...)
    without input transforms the result is that of the attack itself, in less time: from then on their gradient is zero.
    Any other attack would have gone on, and ends early here: its images fool their source, but often transfer less.

    Which images are done is decided once per step, which waits for the device. The figures of an image that has left
    stay those of its last step.

    Args:
        attack: one on the common loop that does not mix images, without gradient transforms, which remember all images
            of a batch.

    Raises:
        ValueError: the attack is none of these; at the first use, the model is an ensemble by
            loss, whose members have predictions of their own.

    Example:
        >>> from lightning_attack.attacks import masked_pgd
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)        # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> model.bias = torch.nn.Parameter(torch.tensor([-1.5, 1.5]))        # from a grey of 0.5 on
        >>> images = torch.tensor([0.6, 0.9]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        >>> shown = []
        >>> hook = model.register_forward_pre_hook(lambda module, given: shown.append(len(given[0])))
        >>> attack = UntilFooled(masked_pgd(eps=0.8, step_size=0.2, random_start=False, steps=5))
        >>> attack(model, images, torch.zeros(2, 1, 1, dtype=torch.int64))[:, 0].flatten()      # 0.6 - 0.2; 0.9 - 0.6
        tensor([0.4000, 0.3000])
        >>> shown                   # the first is seen to be fooled in step 2, the second in step 4
        [2, 2, 1, 1]
    """

    def __init__(self, attack: Attack) -> None:
        super().__init__(attack.name)
        self._display_name, self._papers = attack._display_name, attack._papers
        if (
            type(attack) is not IterativeAttack
            or attack.gradient_transforms
            or attack.source_transforms
            or attack.mixes
        ):
            raise ValueError(
                f"{attack.name} cannot let images go: UntilFooled needs an attack on the common loop (IterativeAttack) "
                "that does not mix images and has no gradient transforms, which remember all images of a batch, and no "
                "source transforms, which change what the source says of them"
            )
        self.attack = attack

    @property
    def wrapped(self) -> Sequence[Attack]:
        return [self.attack]

    @property
    def steps(self) -> int:
        """Number of steps, as of the attack."""
        return self.attack.steps

    @property
    def norm(self) -> Norm:
        """The budget, as of the attack."""
        return self.attack.norm

    def check_model(self, model: Model) -> None:
        if len(loss_members(model)) > 1:
            raise AttackError("UntilFooled asks one network whether pixels are fooled; set the ensemble's by=logits")
        super().check_model(model)

    def perturb(self, problem: Problem) -> Tensor:
        attack = self.attack
        result = attack.start(problem).clone()
        rows = torch.arange(len(result), device=result.device)
        gradient = attack.gradient(problem, remember=True)
        figures: dict[str, Tensor] = {}
        for step in range(attack.steps):
            if len(rows):
                here, rest = result[rows], gradient.problem
                gradient.begin(step)
                direction = rest.inside_only(gradient(here))
                seen = gradient.seen
                assert seen is not None  # the gradient was told to remember it
                going = seen.unfooled.flatten(1).any(1) | (seen.hidden > 0)
                length = attack.step_length(step, rest)
                moved = rest.inside(attack.norm.step(here, rest.images, direction, length))
                stay = going.nonzero().flatten()
                result[rows[stay]] = moved[stay]
                for name, values in gradient.figures.items():
                    known = figures.get(name, torch.zeros(len(result), dtype=values.dtype, device=values.device))
                    figures[name] = known.index_copy(0, rows, values)
                if len(stay) < len(rows):
                    rows = rows[stay]
                    gradient.select(stay)
            problem.log(step, dict(figures))
        return attack.finished(problem, result)

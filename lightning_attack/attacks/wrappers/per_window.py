"""`PerWindow`: attack each window of a photo on its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Model, NoAttack, Problem
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.random import image_seeds
from lightning_attack.common.windows import Windows


class PerWindow(Attack):
    """Attack the windows of photos one after the other, and put the results together to one image.

    Source: the evaluation code of X. Xu et al., "Dynamic Divide-and-Conquer Adversarial Training for Robust Semantic
    Segmentation", ICCV 2021, arXiv 2003.06555, which SegPGD and others took over.

    Where windows overlap, a pixel is taken from the window whose border is farthest from it. Departs from that code,
    which lets each window keep its own perturbation and averages their predictions, so that one pixel of the photo has
    several values at once: here the result is one image inside the budget, which can be saved and shown to any
    network. The figures of a step are the mean over the windows.

    Args:
        attack: what each window is attacked with: one with an L-inf budget, which holds for a photo if it does for its
            windows.
        windows: the windows; those of the model, so that it sees what was attacked.

    Raises:
        ValueError: the attack has another norm, or looks for the smallest one.

    Example:
        >>> from lightning_attack.attacks import fgsm
        >>> attack = PerWindow(fgsm(eps=0.1), Windows(4))
        >>> model = torch.nn.Conv2d(3, 2, 1)
        >>> images, labels = torch.full((1, 3, 5, 6), 0.5), torch.zeros(1, 5, 6, dtype=torch.int64)
        >>> (attack(model, images, labels) - images).abs().amax((0, 2, 3))
        tensor([0.1000, 0.1000, 0.1000])
    """

    def __init__(self, attack: Attack, windows: Windows) -> None:
        super().__init__(attack.name)
        if not isinstance(getattr(attack, "norm", None), Linf) and not isinstance(attack, NoAttack):
            raise ValueError(
                f"{attack.name} cannot attack each window: it has no L-inf budget, and the perturbations of windows "
                "would add up; set model.windows.attack=image"
            )
        self.attack, self.windows = attack, windows

    @property
    def targetable(self) -> bool:  # type: ignore[override]
        return self.attack.targetable

    def check_watchable(self) -> None:
        self.attack.check_watchable()
        raise AttackError(
            f"{self.name} attacks one window after the other, so there are no images after single steps; set "
            "model.windows.attack=image"
        )

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        return self.attack.mixes

    def check_model(self, model: Model) -> None:
        self.attack.check_model(model)

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        return self.attack.quantize(images, adversarial)

    def perturb(self, problem: Problem) -> Tensor:
        height, width = problem.images.shape[-2:]
        window_height, window_width = self.windows.shape
        window_height, window_width = min(height, window_height), min(width, window_width)
        partners = problem.draws.partners
        grid = self.windows.grid(height, width)
        depth = _depth(window_height)[:, None].minimum(_depth(window_width)).to(problem.images.device)
        deepest = depth.new_zeros(height, width)
        adversarial = problem.images.clone()
        figures: defaultdict[int, list[Mapping[str, Tensor]]] = defaultdict(list)
        for number, (top, left) in enumerate(grid):
            rows, columns = slice(top, top + window_height), slice(left, left + window_width)
            result = self.attack(
                problem.model,
                problem.images[..., rows, columns],
                problem.labels[..., rows, columns],
                # The first window has the image's own seed: an image that is one window is attacked as a whole.
                [image_seeds(seed, [number])[0] if number else seed for seed in problem.draws.seeds],
                lambda step, values: figures[step].append(values),
                problem.targeted,
                None if problem.region is None else problem.region[:, 0, rows, columns],
                None if partners is None else partners[..., rows, columns],
            )
            deeper = depth > deepest[rows, columns]
            adversarial[..., rows, columns] = torch.where(deeper, result, adversarial[..., rows, columns])
            deepest[rows, columns] = depth.maximum(deepest[rows, columns])
        for step, values in sorted(figures.items()):
            problem.log(step, {name: _mean([one[name] for one in values]) for name in values[0]})
        return adversarial


def _mean(values: list[Tensor]) -> Tensor:
    """Over the windows; one without a labelled pixel has no figures (NaN). For yes and no, whether any says yes."""
    stacked = torch.stack(values)
    return stacked.any(0) if stacked.dtype == torch.bool else stacked.nanmean(0)


def _depth(length: int) -> Tensor:
    """Distance of each pixel of a side from its nearer end, from 1."""
    position = torch.arange(length)
    return 1 + position.minimum(length - 1 - position)

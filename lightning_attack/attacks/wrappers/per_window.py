"""`PerWindow`: attack each window of a photo on its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import EllipsisType

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, NoAttack, Problem, StepLog
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.norms import Linf
from lightning_attack.attacks.random import Draws, image_seeds
from lightning_attack.attacks.wrappers.base import Wrapper
from lightning_attack.common.windows import Windows


class PerWindow(Wrapper):
    """Attacks the windows of photos one after the other, and puts the results together to one image.

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
        ValueError: the attack has another norm, or seeks the smallest change.

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
        self._display_name, self._papers = attack._display_name, attack._papers
        if not isinstance(getattr(attack, "norm", None), Linf) and not isinstance(attack, NoAttack):
            raise ValueError(
                f"{attack.name} cannot attack each window: it has no L-inf budget, and the perturbations of windows "
                "would add up; set model.windows.attack=image"
            )
        self.attack, self.windows = attack, windows

    @property
    def wrapped(self) -> Sequence[Attack]:
        return [self.attack]

    @property
    def norm(self) -> Linf | None:
        """The budget, as of the attack; None of `NoAttack`, which changes nothing."""
        return getattr(self.attack, "norm", None)

    @property
    def clean_passes(self) -> int:
        # A window is predicted on its own, so the logits of the whole photo are no use to its attack.
        return 0

    def check_watchable(self) -> None:
        self.attack.check_watchable()
        raise AttackError(
            f"{self.name} attacks one window after the other, so there are no images after single steps; set "
            "model.windows.attack=image"
        )

    def perturb(self, problem: Problem) -> Tensor:
        height, width = problem.images.shape[-2:]
        window_height, window_width = (
            min(*lengths) for lengths in zip((height, width), self.windows.shape, strict=True)
        )
        depth = _depth(window_height)[:, None].minimum(_depth(window_width)).to(problem.images.device)
        deepest = depth.new_zeros(height, width)
        adversarial = problem.images.clone()
        figures: defaultdict[int, list[Mapping[str, Tensor]]] = defaultdict(list)
        for number, (top, left) in enumerate(self.windows.grid(height, width)):
            window = ..., slice(top, top + window_height), slice(left, left + window_width)
            part = _part(problem, window, number, lambda step, values: figures[step].append(values))
            deeper = depth > deepest[window]
            adversarial[window] = torch.where(deeper, self.attack.solve(part), adversarial[window])
            deepest[window] = depth.maximum(deepest[window])
        for step, of_windows in sorted(figures.items()):
            problem.log(step, {name: _mean([values[name] for values in of_windows]) for name in of_windows[0]})
        return adversarial


Window = tuple[EllipsisType, slice, slice]
"""Index of a window's pixels in tensors whose last two dimensions are the photo's height and width."""


def _part(problem: Problem, window: Window, number: int, log: StepLog) -> Problem:
    """The problem of one window of the photos."""
    draws = problem.draws
    # The first window has the image's own seed: an image that is one window is attacked as a whole.
    seeds = [image_seeds(seed, [number])[0] if number else seed for seed in draws.seeds]
    return replace(
        problem,
        images=problem.images[window],
        labels=problem.labels[window],
        draws=Draws(seeds, draws.device, None if draws.partners is None else draws.partners[window]),
        log=log,
        region=None if problem.region is None else problem.region[window],
        clean_logits=None,
    )


def _mean(values: list[Tensor]) -> Tensor:
    """Mean over the windows that have a figure (without a label it is NaN); of booleans, whether any is true."""
    stacked = torch.stack(values)
    return stacked.any(0) if stacked.dtype == torch.bool else stacked.nanmean(0)


def _depth(length: int) -> Tensor:
    """Distance of each pixel of a side from its nearer end, from 1."""
    position = torch.arange(length)
    return 1 + position.minimum(length - 1 - position)

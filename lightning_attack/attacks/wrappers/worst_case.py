"""`WorstCase`: run several attacks, and keep the worst result of each image, or the worst for the mIoU of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_attack.attacks.base import Attack, Problem, describe
from lightning_attack.attacks.norms import Norm
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.wrappers.base import Wrapper

By = Literal["accuracy", "miou"]
ROUNDS = 10
"""Most rounds of the greedy choice, the larger of the paper's numbers."""


class WorstCase(Wrapper):
    """The worst result of several attacks, chosen by what the source predicts.

    Source: F. Croce, N. D. Singh, M. Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic
    Segmentation Models", ECCV 2024, arXiv 2306.12941, where it makes SEA of three `APGD`.

        accuracy:  for each image the result with the lowest pixel accuracy; of equal ones the first
        miou:      begin with the one attack whose results have the lowest mIoU; go through the images in random order
                   and take for each the result that lowers the mIoU of all images most; again and again, until a round
                   changes nothing, at most 10 times

    mIoU is the mean over the classes that occur in the labels. In a targeted attack accuracy is the share of pixels
    that have not taken the wanted class, and mIoU, with the wanted classes as labels, is raised instead.

    By `miou` **the images of one call are the set**: an image's result depends on the others of its batch, so give one
    large batch. A batch of one image is allowed; for it the choice is by its own mIoU.

    Each attack does what it would do alone with the same seeds, so no result is worse than that of a part run alone;
    it also means that an attack given twice is no restart. The steps are numbered on from attack to attack, and each
    attack logs its own figures.

    Departs from the released code, which stores the results of all attacks on all images and chooses afterwards: there
    the set is always the whole data set.

    Args:
        attacks: attacks with one and the same norm and radius, one or more.
        by: `accuracy` or `miou`.
        name: name in tables and folders.

    Raises:
        ValueError: no attacks, an attack without a norm (such as one that seeks the smallest norm), different norms
            or radii, or an unknown `by`.

    Example:
        >>> from lightning_attack.attacks import bim
        >>> model = torch.nn.Conv2d(3, 2, 1, bias=False)              # class 0 likes bright pixels, class 1 dark ones
        >>> model.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone()
        >>> images, labels = torch.full((1, 3, 1, 1), 0.52), torch.zeros(1, 1, 1, dtype=torch.int64)
        >>> model.bias = torch.nn.Parameter(torch.tensor([-1.5, 1.5]))
        >>> weak, strong = bim(eps=0.1, steps=1, step_size=0.01), bim(eps=0.1, steps=1, step_size=0.05)
        >>> WorstCase([weak, strong])(model, images, labels)[0, 0]    # 0.51 is still class 0
        tensor([[0.4700]])
    """

    def __init__(self, attacks: Sequence[Attack], by: By = "accuracy", name: str = "worst_case") -> None:
        super().__init__(name)
        self._papers = tuple(dict.fromkeys(key for attack in attacks for key in attack._papers))
        if not attacks:
            raise ValueError("attacks=[]: give one or more")
        if by not in get_args(By):
            raise ValueError(f"by='{by}': must be one of {', '.join(get_args(By))}")
        self.attacks, self.by = list(attacks), by
        norms: list[Any] = [getattr(attack, "norm", None) for attack in attacks]
        for attack, norm in zip(attacks, norms, strict=True):
            if not isinstance(norm, Norm):
                raise ValueError(
                    f"{attack.name} has no norm to stay in, so its results cannot be compared with those of a budget; "
                    "give attacks with a norm"
                )
            if describe(norm) != describe(norms[0]):
                raise ValueError(
                    f"{attacks[0].name} has the budget {_budget(norms[0])}, {attack.name} {_budget(norm)}: the worst "
                    "case is one of equal budgets"
                )
        self._norm: Norm = norms[0]

    @property
    def norm(self) -> Norm:
        """The budget of all its attacks."""
        return self._norm

    @property
    def steps(self) -> int:
        """The steps of all its attacks together."""
        return sum(getattr(attack, "steps", 0) for attack in self.attacks)

    @property
    def wrapped(self) -> Sequence[Attack]:
        return self.attacks

    def perturb(self, problem: Problem) -> Tensor:
        results = (self._run(number, problem) for number in range(len(self.attacks)))
        return _lowest_accuracy(problem, results) if self.by == "accuracy" else _lowest_miou(problem, list(results))

    def quantize(self, images: Tensor, adversarial: Tensor) -> Tensor:
        return self.norm.quantize(images, adversarial)

    def _run(self, number: int, problem: Problem) -> Tensor:
        """One of the attacks, with draws of its own and steps numbered on from those before it."""
        before = sum(getattr(attack, "steps", 0) for attack in self.attacks[:number])
        draws = Draws(problem.draws.seeds, problem.draws.device, problem.draws.partners)
        part = replace(problem, draws=draws, log=lambda step, figures: problem.log(before + step, figures))
        # Chosen by what is returned: changes where they are allowed.
        return self.attacks[number].solve(part)


def _lowest_accuracy(problem: Problem, results: Iterator[Tensor]) -> Tensor:
    worst = next(results)
    fewest = _unfooled(problem, worst)
    for result in results:
        unfooled = _unfooled(problem, result)
        worst = torch.where((unfooled < fewest).view(-1, 1, 1, 1), result, worst)
        fewest = unfooled.minimum(fewest)
    return worst


def _unfooled(problem: Problem, images: Tensor) -> Tensor:
    """Number of each image's labelled pixels that are not won, (B,)."""
    with torch.no_grad():
        return problem.predict(images).unfooled.flatten(1).sum(1)


def _lowest_miou(problem: Problem, results: list[Tensor]) -> Tensor:
    counts = torch.stack([_counts(problem, result) for result in results])
    sign = -1 if problem.targeted else 1

    def scores(totals: Tensor) -> Tensor:
        """MIoU of counts (..., 3, C), with the sign with which it is to be lowered.

        The same mIoU as `metrics.iou.miou`; written here because attacks know torch only.
        """
        hits, labelled, predicted = totals.unbind(-2)
        occurs = labelled[(0,) * (labelled.ndim - 1)] > 0  # the same for all choices
        return sign * (hits / (labelled + predicted - hits).clamp_min(1))[..., occurs].mean(-1)

    images = range(counts.shape[1])
    first = int(scores(counts.sum(1)).argmin())
    choice, total = [first] * len(images), counts[first].sum(0)
    for _ in range(ROUNDS):
        order = problem.draws.uniform_on_host("worst case")
        changed = False
        for image in sorted(images, key=order.__getitem__):
            options = total - counts[choice[image], image] + counts[:, image]
            lowered = scores(options)
            # A gain that is more than rounding, so that the rounds come to an end.
            if lowered.min() < lowered[choice[image]] - 1e-12:
                choice[image] = int(lowered.argmin())
                total, changed = options[choice[image]], True
        if not changed:
            break
    return torch.stack([results[attack][image] for image, attack in enumerate(choice)])


def _counts(problem: Problem, images: Tensor) -> Tensor:
    """Per image and class the right pixels, the labels and the predictions, (B, 3, C), float64 on the CPU."""
    with torch.no_grad():
        prediction = problem.predict(images)
    classes = prediction.logits.shape[1]
    labels, predicted = prediction.known_labels, prediction.classes
    valid = prediction.valid
    hits = valid & (predicted == labels)
    rows = []
    for values, weights in ((labels, hits), (labels, valid), (predicted, valid)):
        # The class after the last takes the pixels that do not count.
        each = torch.where(weights, values, classes)
        rows.append(torch.stack([torch.bincount(image.flatten(), minlength=classes + 1)[:classes] for image in each]))
    return torch.stack(rows, 1).cpu().double()


def _budget(norm: Norm) -> str:
    return f"{norm.name} {norm.eps:.6g}"

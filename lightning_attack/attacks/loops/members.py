"""Gradients of the single members of an ensemble, for attacks that do more with them than average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.attacks.base import Model, Problem
from lightning_attack.attacks.loops.gradient import LossGradient

MakeGradient = Callable[[Problem], LossGradient]
"""`IterativeAttack.gradient`: the gradient of an attack's objective on a problem."""


def members_of(problem: Problem) -> tuple[list[Model], list[float]]:
    """The members of the source and their weights, of sum 1; the attack has checked that the source has them."""
    source: Any = problem.model
    return list(source.members), [float(weight) for weight in source.weights]


def of_each(problem: Problem, make: MakeGradient) -> list[LossGradient]:
    """The gradient of each member's own loss. Known clean logits are those of the ensemble, not of its members."""
    return [make(replace(problem, model=member, clean_logits=None)) for member in members_of(problem)[0]]


class MembersGradient:
    """Base of gradients that are made of those of several members; what is logged is the weighted mean of theirs.

    Args:
        problem: the batch; its model is an ensemble.
        make: gives the gradient of the attack's objective.
    """

    def __init__(self, problem: Problem, make: MakeGradient) -> None:
        self.problem = problem
        self.members, self.weights = members_of(problem)
        self.losses = of_each(problem, make)

    def __call__(self, x: Tensor) -> Tensor:
        """Where to go from a point, (B, 3, H, W)."""
        raise NotImplementedError

    def begin(self, step: int) -> None:
        """As `LossGradient.begin`."""
        for loss in self.losses:
            loss.begin(step)

    def forget(self) -> None:
        """As `LossGradient.forget`."""
        for loss in self.losses:
            loss.forget()

    @property
    def figures(self) -> dict[str, Tensor]:
        """As `LossGradient.figures`."""
        first, *_ = found = [loss.figures for loss in self.losses]
        pairs = list(zip(found, self.weights, strict=True))
        return {name: torch.stack([known[name] * weight for known, weight in pairs]).sum(0) for name in first}


class Weighted(nn.Module):
    """An ensemble with weights for each image, in place of its own.

    Args:
        members: images (B, 3, H, W) to logits (B, C, H, W).
        by: `logits` or `softmax`, what is averaged.
    """

    def __init__(self, members: Sequence[Model], by: str) -> None:
        super().__init__()
        self.members, self.by = list(members), by
        self.shares = torch.ones(0)

    def forward(self, images: Tensor) -> Tensor:
        """The average of the members' logits by `shares`, (K, B)."""
        logits = torch.stack([member(images) for member in self.members])
        shares = self.shares.to(logits.dtype).view(*self.shares.shape, 1, 1, 1)
        if self.by == "softmax":
            return (F.log_softmax(logits, dim=2) + shares.log()).logsumexp(0)
        return (logits * shares).sum(0)

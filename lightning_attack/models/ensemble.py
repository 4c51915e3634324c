"""`Ensemble`: several networks attacked as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack.models.wrapper import ModelError, SegmentationModel, as_segmentation_model

Average = Literal["logits", "softmax", "loss"]


class Ensemble(SegmentationModel):
    """Networks of the same classes, averaged with weights.

    Source: Y. Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, arXiv 1710.06081, which compares
    the three averages.

        logits:   z = sum_k w_k z_k                      the paper's choice
        softmax:  z = log sum_k w_k softmax(z_k)
        loss:     L = sum_k w_k L(z_k)                   each member keeps its own pixel weights, stages and features

    With `loss` the average is the attack's business, and what the ensemble itself predicts (and is scored by) is the
    average of the logits. Attacks without an objective (`ALMAProx`, `DAG`, `Peer`) see that average too.

    Args:
        members: networks on [0, 1] images, one or more.
        weights: one number above 0 for each member, scaled to sum 1; None = equal ones.
        by: what is averaged.
        name: name in tables and folders.

    Raises:
        ModelError: no members, weights that do not fit, an unknown average, or members of different classes (found at
            the first image).

    Example:
        >>> class Constant(nn.Module):
        ...     def __init__(self, *logits):
        ...         super().__init__()
        ...         self.logits = torch.tensor(logits).view(1, -1, 1, 1)
        ...     def forward(self, images):
        ...         return self.logits.expand(len(images), -1, *images.shape[2:])
        >>> Ensemble([Constant(0.0, 4.0), Constant(0.0, 0.0)], weights=[3, 1])(torch.zeros(1, 3, 1, 1)).flatten()
        tensor([0., 3.])
        >>> Ensemble([Constant(0.0, 4.0), Constant(4.0, 0.0)], by="softmax")(torch.zeros(1, 3, 1, 1)).exp().flatten()
        tensor([0.5000, 0.5000])
    """

    _classes_last = False

    def __init__(
        self,
        members: list[nn.Module],
        weights: Sequence[float] | None = None,
        by: Average = "logits",
        name: str = "ensemble",
    ) -> None:
        if not members:
            raise ModelError("an ensemble needs members: networks on [0, 1] images")
        if by not in get_args(Average):
            raise ModelError(f"by='{by}': must be one of {', '.join(get_args(Average))}")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members) or not all(math.isfinite(w) and w > 0 for w in weights):
            raise ModelError(f"weights={weights} for {len(members)} members; give one number above 0 for each")
        self.weights = [weight / math.fsum(weights) for weight in weights]
        self.by = by
        super().__init__(_Mean([as_segmentation_model(member) for member in members], self.weights, by), name=name)

    @property
    def members(self) -> list[nn.Module]:
        """The networks."""
        return list(self.network.members)  # type: ignore[union-attr, arg-type]


class _Mean(nn.Module):
    """The members' average as a network."""

    def __init__(self, members: Sequence[SegmentationModel], weights: Sequence[float], by: str) -> None:
        super().__init__()
        self.members, self.weights, self.by = nn.ModuleList(members), weights, by

    def forward(self, images: Tensor) -> Tensor:
        logits = [member(images) for member in self.members]
        counts = sorted({member.shape[1] for member in logits})
        if len(counts) > 1:
            raise ModelError(f"the members of an ensemble have {counts} classes; all must have the same")
        if self.by == "softmax":
            terms = [F.log_softmax(z, dim=1) + math.log(w) for z, w in zip(logits, self.weights, strict=True)]
            return torch.stack(terms).logsumexp(0)
        total = logits[0] * self.weights[0]
        for z, w in zip(logits[1:], self.weights[1:], strict=True):
            total = total + z * w
        return total

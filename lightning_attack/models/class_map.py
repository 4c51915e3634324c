"""`ClassMap`: map the classes of a network to those of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_attack.models.wrapper import ModelError, SegmentationModel, as_segmentation_model

ABSENT = -1e4
"""Logit of a class without a source: probability 0, yet finite, in half precision too."""


class ClassMap(SegmentationModel):
    """A network whose classes are grouped into other classes, such as the 150 of ADE20K into the 21 of PASCAL VOC.

        logit of target class t = log sum exp of the logits of its source classes
        logit of a target class without source classes = -10^4

    So the softmax of the result is the sum of the source's probabilities over each group, given that the pixel is one
    of the mapped classes; with the maximum instead, a group would not gain by having two likely members. A group of one
    keeps its logit. Gradients flow to all source classes of a group, in the proportion of their probabilities.

    Source classes in no group count for `rest` if that is given, and are left out otherwise: they can then never be
    predicted, and their pixels go to the most likely mapped class.

    Args:
        network: the network, on [0, 1] images.
        groups: source classes of each target class: a list with one list for each, or a mapping from target class.
        num_classes: number of target classes; None = as many as `groups` and `rest` name.
        rest: target class that takes the source classes of no group; None = they are left out.
        name: name in tables and folders; the default is the network's.

    Raises:
        ModelError: a class is out of range (of the network: found at the first image if its number of
            classes is unknown), or a source class stands in two groups.

    Example:
        >>> class Constant(nn.Module):
        ...     def forward(self, images):
        ...         logits = torch.tensor([1.0, 2.0, 3.0]).log().view(1, 3, 1, 1)
        ...         return logits.expand(len(images), -1, *images.shape[2:])
        >>> model = ClassMap(Constant(), groups=[[1], [0, 2], []])     # 0 <- 2, 1 <- 1 + 3, 2 <- nothing
        >>> model(torch.zeros(1, 3, 1, 1)).exp().flatten()
        tensor([2., 4., 0.])
    """

    _classes_last = False
    _one_is_binary = False

    def __init__(
        self,
        network: nn.Module,
        groups: list[list[int]] | dict[int, list[int]],
        num_classes: int | None = None,
        rest: int | None = None,
        name: str | None = None,
    ) -> None:
        model = as_segmentation_model(network)
        by_target = dict(groups) if isinstance(groups, Mapping) else dict(enumerate(groups))
        targets = [*by_target, *([] if rest is None else [rest])]
        count = max(targets, default=-1) + 1 if num_classes is None else num_classes
        if not any(by_target.values()):
            raise ModelError(f"groups={groups}: name the source classes of at least one target class")
        outside = [target for target in targets if not 0 <= target < count]
        if outside:
            raise ModelError(f"target class {outside[0]} is out of range: num_classes={count} means 0 to {count - 1}")
        owner: dict[int, int] = {}
        for target, sources in by_target.items():
            for source in sources:
                if source in owner:
                    raise ModelError(
                        f"source class {source} stands in the groups of target classes {owner[source]} and {target}; "
                        "it can belong to one only, once"
                    )
                owner[source] = target
        network_ = _Grouped(model, [by_target.get(target, []) for target in range(count)], rest)
        if model.num_classes is not None:
            network_.check(model.num_classes)
        super().__init__(network_, count, name=name or model.name)
        if (known := model.classes) is not None and len(known) == model.num_classes:
            # A group of several classes is a class of its own, without a name.
            self.classes = tuple(
                known[group[0]] if len(group) == 1 and target != rest else ""
                for target, group in enumerate(network_.groups)
            )


class _Grouped(nn.Module):
    """The network with its logits grouped."""

    def __init__(self, model: SegmentationModel, groups: Sequence[Sequence[int]], rest: int | None) -> None:
        super().__init__()
        self.model, self.groups, self.rest = model, [list(group) for group in groups], rest

    def check(self, classes: int) -> None:
        """Raise if a group names a class that a network of `classes` classes does not have."""
        for target, group in enumerate(self.groups):
            for source in group:
                if not 0 <= source < classes:
                    raise ModelError(
                        f"source class {source} of target class {target} is out of range: network "
                        f"'{self.model.name}' has {classes} classes, 0 to {classes - 1}"
                    )

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.check(logits.shape[1])
        return torch.stack([self._logit(logits, group) for group in self._with_rest(logits.shape[1])], dim=1)

    def _with_rest(self, classes: int) -> list[list[int]]:
        if self.rest is None:
            return self.groups
        mapped = {source for group in self.groups for source in group}
        unmapped = [source for source in range(classes) if source not in mapped]
        return [group + unmapped if target == self.rest else group for target, group in enumerate(self.groups)]

    @staticmethod
    def _logit(logits: Tensor, group: list[int]) -> Tensor:
        if not group:
            return torch.full_like(logits[:, 0], ABSENT)
        return logits[:, group[0]] if len(group) == 1 else logits[:, group].logsumexp(1)

"""The classes to which a targeted run pulls pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.predict.batches import Batch, BatchError


def check_target_labels(target_labels: int | str | None, num_classes: int) -> int | str | None:
    """`target_labels` as it is, if it is a class, `least_likely`, `masks` or None.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> check_target_labels("all", num_classes=8)
        Traceback (most recent call last):
            ...
        ValueError: target_labels='all': must be a class, least_likely or masks (or null)
    """
    if target_labels is None or target_labels in ("least_likely", "masks"):
        return target_labels
    if isinstance(target_labels, bool) or not isinstance(target_labels, int):
        raise ValueError(f"target_labels={target_labels!r}: must be a class, least_likely or masks (or null)")
    if not 0 <= target_labels < num_classes:
        raise ValueError(
            f"target_labels={target_labels}: the networks have the classes 0..{num_classes - 1}; "
            "give one of them, least_likely or masks (or null)"
        )
    return target_labels


def wanted_classes(
    target_labels: int | str | None, logits: Sequence[Tensor], batch: Batch, labels: Tensor
) -> Tensor | None:
    """The classes that pixels are to take, (B, H, W) int64, 255 = none wanted; None for an untargeted attack.

    Args:
        target_labels: see `AttackModule`.
        logits: for `least_likely` the source's of the clean images, (B, C, H, W).
        batch: needs for `masks` the key `target_mask`.
        labels: (B, H, W) int64, 255 = ignored.

    Raises:
        BatchError: the batch has no `target_mask`.

    Example:
        >>> wanted_classes(3, [], {}, torch.tensor([[[0, 255]]])).tolist()
        [[[3, 255]]]
    """
    if target_labels is None:
        return None
    if target_labels == "masks":
        if "target_mask" not in batch:
            raise BatchError("target_labels='masks' needs the wanted classes: the key 'target_mask' in each batch")
        return batch["target_mask"]
    least_likely = target_labels == "least_likely"
    wanted = logits[0].min(1)[1] if least_likely else torch.full_like(labels, int(target_labels))
    return torch.where(labels == IGNORE_INDEX, IGNORE_INDEX, wanted)

"""The classes that the pixels of a targeted run shall take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attack.common.labels import IGNORE_INDEX


def check_target_labels(target_labels: int | str | None, num_classes: int) -> int | str | None:
    """The wish as it is: a class, `least_likely`, `masks` or None.

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
    target_labels: int | str | None, source: nn.Module, batch: Mapping[str, Any], labels: Tensor
) -> Tensor | None:
    """The classes that pixels shall take, (B, H, W), 255 = no wish; None if they shall only lose theirs.

    Args:
        target_labels: the wish.
        source: the network whose least likely classes are meant.
        batch: with `image`, and for `masks` with `target_mask`.
        labels: (B, H, W), 255 = ignored.

    Example:
        >>> wanted_classes(3, nn.Identity(), {}, torch.tensor([[[0, 255]]])).tolist()
        [[[3, 255]]]
    """
    if target_labels is None:
        return None
    if target_labels == "masks":
        return batch["target_mask"]
    if target_labels == "least_likely":
        with torch.no_grad():
            wanted = source(batch["image"]).min(1)[1]
    else:
        wanted = torch.full_like(labels, int(target_labels))
    return torch.where(labels == IGNORE_INDEX, IGNORE_INDEX, wanted)

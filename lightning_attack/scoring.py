"""What a network says about a batch, and what becomes of a target that fails on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attack.engine import out_of_memory
from lightning_attack.faults import OnError, finite, refuse


def predicted_classes(
    network: nn.Module,
    name: str,
    images: Tensor,
    names: list[str],
    failed: list[dict[str, str]],
    on_error: OnError = "raise",
    source: bool = False,
) -> Tensor:
    """Classes that a network predicts, (B, H, W).

    Args:
        network: images (B, 3, H, W) in [0, 1] to logits.
        name: of the network.
        images: what it is shown.
        names: of the images.
        failed: for each image the networks that fail on it, with the reason; with `on_error="skip"` it is told.
        on_error: whether a target that fails is an error.
        source: whether it is the source, whose failures are always errors.

    Raises:
        ImageError: the network gives NaN, or as a target fails, where that is an error.
        Exception: what the source raises; of a target that memory is short.

    Example:
        >>> failed = [{}, {}]
        >>> images = torch.tensor([1.0, torch.nan]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        >>> predicted_classes(nn.Identity(), "a", images, ["x", "y"], failed, "skip").shape, failed
        (torch.Size([2, 1, 1]), [{}, {'a': "'a' gives NaN or infinite logits"}])
    """
    reason = f"'{name}' gives NaN or infinite logits"
    try:
        with torch.no_grad():
            values, classes = network(images).max(1)
        bad = ~finite(values)
    except Exception as error:
        if source or out_of_memory(error):
            raise
        reason = f"'{name}' fails ({type(error).__name__}: {error})"
        classes = images.new_zeros(images[:, 0].shape, dtype=torch.int64)
        bad = torch.ones(len(images), dtype=torch.bool)
    if source or on_error == "raise":
        refuse(bad, names, reason)
    for row in bad.nonzero().flatten().tolist():
        failed[row][name] = reason
    return classes

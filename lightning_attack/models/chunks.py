"""Batches of any length for networks that take only some."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_chunks(run: Callable[[Tensor], Tensor], images: Tensor, least: int, most: int) -> Tensor:
    """Run a function on parts of a batch, and join what it returns.

    Args:
        run: (n, ...) to (n, ...), for n from `least` to `most`.
        images: (B, ...) for any B above 0.
        least: a part of fewer images is filled up with its last one; what is returned for the copies is dropped.
        most: parts have no more images than this.

    Example:
        >>> seen = []
        >>> def double(x):
        ...     seen.append(len(x))
        ...     return 2 * x
        >>> in_chunks(double, torch.tensor([1, 2, 3, 4, 5]), least=2, most=2)
        tensor([ 2,  4,  6,  8, 10])
        >>> seen
        [2, 2, 2]
    """
    parts = []
    for part in images.split(most):
        filled = torch.cat([part, part[-1:].expand(least - len(part), *part.shape[1:])]) if len(part) < least else part
        parts.append(run(filled)[: len(part)])
    return parts[0] if len(parts) == 1 else torch.cat(parts)

"""Do predictions agree better with label maps that are turned? Then masks and photos lie differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lightning_attack.common.labels import IGNORE_INDEX

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored left to right": lambda mask: mask[:, ::-1],
    "mirrored top to bottom": lambda mask: mask[::-1],
    "turned by 180 degrees": lambda mask: mask[::-1, ::-1],
    "transposed (rows and columns exchanged)": lambda mask: mask.T,
    "turned by 90 degrees": lambda mask: np.rot90(mask),
    "turned by 270 degrees": lambda mask: np.rot90(mask, 3),
}
"""How masks may lie beside their photos; those that exchange height and width show on square photos only."""
_MORE = 0.1
"""By how much the accuracy has to grow."""


def other_orientation(
    labels: Sequence[np.ndarray], predictions: Sequence[np.ndarray]
) -> tuple[str, float, float] | None:
    """The turn of the label maps with which predictions agree better, on every image and by 0.1 in accuracy overall.

    Args:
        labels: of each image the classes, (H, W); 255 is ignored.
        predictions: of each image what a network predicts for it, (H, W).

    Returns:
        The turn, as in `TURNS`, and the pixel accuracy as masks lie and with it; None if they lie right as far as can
        be seen, or there are fewer than two images.

    Example:
        >>> seen = [np.array([[1, 0], [0, 0]]), np.array([[0, 2], [0, 0]])]
        >>> other_orientation([mask[::-1] for mask in seen], seen)
        ('mirrored top to bottom', 0.5, 1.0)
        >>> other_orientation(seen, seen)
    """
    pairs = [(mask, seen) for mask, seen in zip(labels, predictions, strict=True) if (mask != IGNORE_INDEX).any()]
    if len(pairs) < 2:
        return None
    own = np.array([_accuracy(mask, seen) for mask, seen in pairs])
    best = None
    for name, turn in TURNS.items():
        found = np.array([_accuracy(turn(mask), seen) for mask, seen in pairs])
        if (found > own).all() and found.mean() - own.mean() >= _MORE and (best is None or found.mean() > best[2]):
            best = name, float(own.mean()), float(found.mean())
    return best


def _accuracy(mask: np.ndarray, seen: np.ndarray) -> float:
    """Share of the labelled pixels that are predicted right; -1 if the two differ in size."""
    return float((mask == seen)[mask != IGNORE_INDEX].mean()) if mask.shape == seen.shape else -1.0

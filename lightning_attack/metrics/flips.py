"""Where in an image pixels flip: near the edges of labels or far from them, in small objects or in large ones."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lightning_attack.common.labels import IGNORE_INDEX

DISTANCES = ("0-1", "2-3", "4-7", "8-15", "16-31", "32 or more")
"""Pixels between a pixel and the nearest one of another label."""
SIZES = ("below 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 % or more")
"""Share of the image that the connected object of a label has."""
BINS = {"distance": DISTANCES, "size": SIZES}
STATES = ("right", "flipped")
_FROM = (2, 4, 8, 16, 32)  # distances at which the second bin and those after it begin
_THOUSANDTHS = np.array((1, 10, 100))
_AND_CORNERS = np.ones((3, 3), bool)


def flip_counts(labels: np.ndarray, clean: np.ndarray, adversarial: np.ndarray) -> dict[str, np.ndarray]:
    """How many labelled pixels of an image were right, and how many of these an attack made wrong, by place.

        right   = number of pixels with clean = label
        flipped = number of those with adversarial != label

    Args:
        labels: (H, W) integers, 255 = not counted.
        clean: predicted classes for the clean image, (targets, H, W).
        adversarial: those for the adversarial one.

    Returns:
        `distance` (targets, 2, 6) and `size` (targets, 2, 4), int64: right and flipped in the bins of `boundary_bins`
        and `object_bins`.

    Example:
        >>> labels = np.array([[0, 0, 0, 0, 1]])                  # distances 3 2 1 0 0, objects of 80 % and 20 %
        >>> counts = flip_counts(labels, np.array([[[0, 0, 0, 1, 1]]]), np.array([[[1, 0, 0, 0, 0]]]))
        >>> counts["distance"].tolist(), counts["size"].tolist()
        ([[[2, 2, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]], [[[0, 0, 0, 4], [0, 0, 0, 2]]])
    """
    right = (clean == labels) & (labels != IGNORE_INDEX)
    states = right.astype(np.uint8) + (right & (adversarial != labels))  # 0 = was wrong, 1 = stays right, 2 = flipped
    places = boundary_bins(labels) * len(SIZES) + object_bins(labels)
    shape = len(DISTANCES), len(SIZES), 3
    counts = np.stack(
        [np.bincount((places * 3 + state).ravel(), minlength=np.prod(shape)).reshape(shape) for state in states]
    )
    both = np.stack([counts[..., 1] + counts[..., 2], counts[..., 2]], 1)  # (targets, 2, distances, sizes)
    return {"distance": both.sum(3), "size": both.sum(2)}


def boundary_bins(labels: np.ndarray) -> np.ndarray:
    """The bin of `DISTANCES` of each pixel, (H, W) uint8.

    The distance is the larger one of rows and columns; a pixel that touches another label, if only at a corner, has 0.
    Ignored pixels are a label of their own: PASCAL VOC draws them along the edges of objects. Without any edge all
    pixels are in the last bin.

    Example:
        >>> boundary_bins(np.array([[0, 0, 0, 0, 0, 1]])).tolist()    # distances 4 3 2 1 0 0
        [[2, 1, 1, 0, 0, 0]]
    """
    edge = np.zeros(labels.shape, bool)
    for here, there in (
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        differs = labels[here] != labels[there]
        edge[here] |= differs
        edge[there] |= differs
    if not edge.any():
        return np.full(labels.shape, len(DISTANCES) - 1, np.uint8)
    distance = ndimage.distance_transform_cdt(~edge, metric="chessboard")
    table = np.searchsorted(_FROM, np.arange(_FROM[-1] + 1), side="right").astype(np.uint8)
    bins: np.ndarray = table[np.minimum(distance, _FROM[-1])]
    return bins


def object_bins(labels: np.ndarray) -> np.ndarray:
    """The bin of `SIZES` of each pixel, (H, W) uint8: by the object that it belongs to.

    An object is a connected set of pixels of one label, through corners too. Ignored pixels are in bin 0.

    Example:
        >>> labels = np.zeros((20, 100), int)          # 2000 pixels
        >>> labels[3, 3], labels[9, 5:9] = 1, 1        # objects of 1 pixel, 0.05 %, and of 4, 0.2 %
        >>> bins = object_bins(labels)
        >>> bins[0, 0].item(), bins[3, 3].item(), bins[9, 5].item()
        (3, 0, 1)
    """
    bins = np.zeros(labels.shape, np.uint8)
    for label, box in enumerate(ndimage.find_objects(labels + 1)):  # it counts from 1
        if box and label != IGNORE_INDEX:
            own = labels[box] == label
            objects, _ = ndimage.label(own, _AND_CORNERS)
            # In whole numbers, so that a size at the border of two bins is no matter of rounding.
            of_object = np.searchsorted(_THOUSANDTHS * labels.size, 1000 * np.bincount(objects.ravel()), side="right")
            bins[box][own] = of_object[objects[own]]
    return bins

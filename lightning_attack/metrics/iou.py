"""IoU and its means from confusion matrices, in numpy: the one place where they are computed."""

from __future__ import annotations

import numpy as np


def class_counts(confusion: np.ndarray) -> np.ndarray:
    """Hits, labels and predictions of each class, (..., 3, C) float64.

    Args:
        confusion: (..., C, C), integers; rows are labels, columns predictions. A further column counts pixels for which
            a network abstains: they have labels and no predictions.

    Example:
        >>> class_counts(np.array([[2, 1], [0, 4]])).tolist()
        [[2.0, 4.0], [3.0, 4.0], [2.0, 5.0]]
        >>> class_counts(np.array([[2, 1, 1], [0, 4, 0]])).tolist()
        [[2.0, 4.0], [4.0, 4.0], [2.0, 5.0]]
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    predictions = confusion.sum(-2)[..., : confusion.shape[-2]]
    return np.stack([hits, confusion.sum(-1), predictions], -2).astype(np.float64)


def iou(counts: np.ndarray) -> np.ndarray:
    """IoU of each class, (..., C); NaN for a class in neither labels nor predictions.

        IoU_c = hits_c / (labels_c + predictions_c - hits_c)

    Args:
        counts: (..., 3, C), see `class_counts`.

    Example:
        >>> iou(class_counts(np.array([[2, 1, 0], [0, 4, 0], [0, 0, 0]]))).round(3).tolist()
        [0.667, 0.8, nan]
    """
    hits, labels, predictions = np.moveaxis(counts, -2, 0)
    union = labels + predictions - hits
    result: np.ndarray = np.full_like(union, np.nan)
    np.divide(hits, union, out=result, where=union > 0)
    return result


def miou(counts: np.ndarray) -> np.ndarray:
    """Mean IoU over the classes that occur in the labels, (...); NaN without labels.

    Attacks change predictions, not labels, so clean and adversarial figures are means over the same classes.

    Args:
        counts: (..., 3, C), see `class_counts`.

    Example:
        >>> miou(class_counts(np.array([[2, 0, 1], [0, 4, 0], [0, 0, 0]]))).round(3)    # of 2/3 and 1; no label is 2
        np.float64(0.833)
    """
    return _mean(iou(counts), counts[..., 1, :] > 0)


def miou_union(counts: np.ndarray) -> np.ndarray:
    """Mean IoU over the classes that occur in labels or predictions, (...); NaN without both.

    Equal to torchmetrics' `MulticlassJaccardIndex(average="macro")`. A single pixel predicted as a class without labels
    adds a class with IoU 0.

    Args:
        counts: (..., 3, C), see `class_counts`.

    Example:
        >>> miou_union(class_counts(np.array([[2, 0, 1], [0, 4, 0], [0, 0, 0]]))).round(3)    # of 2/3, 1 and 0
        np.float64(0.556)
    """
    values = iou(counts)
    return _mean(values, ~np.isnan(values))


def accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of the labelled pixels that are predicted right, (...); NaN without labels.

    Args:
        counts: (..., 3, C), see `class_counts`.

    Example:
        >>> accuracy(class_counts(np.array([[2, 0, 1], [0, 4, 0], [0, 0, 0]]))).round(3)
        np.float64(0.857)
    """
    with np.errstate(invalid="ignore"):
        share: np.ndarray = counts[..., 0, :].sum(-1) / counts[..., 1, :].sum(-1)
    return share


def abstained(counts: np.ndarray) -> np.ndarray:
    """Share of the labelled pixels for which a network abstains, so that they have no prediction; NaN without labels.

    Args:
        counts: (..., 3, C), see `class_counts`.

    Example:
        >>> abstained(np.array([[2.0, 1.0], [3.0, 5.0], [2.0, 2.0]]))       # 8 labels, 4 predictions
        np.float64(0.5)
    """
    with np.errstate(invalid="ignore"):
        share: np.ndarray = 1 - counts[..., 2, :].sum(-1) / counts[..., 1, :].sum(-1)
    return share


def _mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(counted, values, 0.0).sum(-1) / counted.sum(-1)
    return mean

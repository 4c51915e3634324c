"""Does a confusion matrix show more agreement than chance would, and would it show more in another order of classes?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from lightning_attack.metrics.iou import accuracy, class_counts, iou, miou

_RECOGNISED, _MISSED = 0.3, 0.1
"""IoU from which a class counts as found under another one's number, and below which it is not found under its own."""
_SMALLEST = 1e-3
"""Smaller shares of the labelled pixels say nothing about a class."""


class Agreement(NamedTuple):
    """How far predictions agree with labels, and how far the same predictions would by chance.

    Attributes:
        miou: mean IoU over the classes that occur in the labels.
        chance: the mean IoU that predictions of the same frequencies would have if they were independent of the labels.
        skill: (miou - chance) / (1 - chance): 0 = chance, 1 = perfect, negative = worse than chance.
        kappa: the same of the pixel accuracy: J. Cohen, "A Coefficient of Agreement for Nominal Scales", Educational
            and Psychological Measurement 20(1), 1960.
    """

    miou: float
    chance: float
    skill: float
    kappa: float


def agreement(confusion: np.ndarray) -> Agreement | None:
    """Compare a confusion matrix with what its margins would give by chance; None where labels do not vary enough.

        expected hits of class c = labels_c predictions_c / pixels

    Args:
        confusion: (C, C), integers; rows are labels, columns predictions.

    Returns:
        The agreement; None if there are no labels, or 99 % of them or more are one class: then everything agrees by
        chance.

    Example:
        >>> agreement(np.array([[30, 10], [30, 10]]))     # class 0 is predicted for 3 of 4 pixels, whatever the label
        Agreement(miou=0.3142857142857143, chance=0.3142857142857143, skill=0.0, kappa=0.0)
        >>> agreement(np.array([[40, 0], [0, 40]])).skill
        1.0
        >>> agreement(np.array([[5, 5], [0, 0]]))
    """
    counts = class_counts(confusion)
    _, labels, predictions = counts
    pixels = labels.sum()
    if not pixels or labels.max() >= 0.99 * pixels:
        return None
    by_chance = np.stack([labels * predictions / pixels, labels, predictions])
    values = [(float(of(counts)), float(of(by_chance))) for of in (miou, accuracy)]
    (found, chance), _ = values
    skill, kappa = ((value - expected) / (1 - expected) for value, expected in values)
    return Agreement(found, chance, skill, kappa)


def other_order(confusion: np.ndarray) -> tuple[dict[int, int], float] | None:
    """The numbers under which classes are predicted, if these are others than their own.

    Classes of the labels are matched with predicted ones so that the sum of their IoU is largest (the assignment
    problem: H. W. Kuhn, "The Hungarian Method", Naval Research Logistics 2, 1955). A class has *moved* if it is found
    under another number (IoU of 0.3 or more) and missed under its own (below 0.1). One such class is a mistake of the
    network; two that change places, or three, are another order of the classes.

    Args:
        confusion: (C, C), integers; rows are labels, columns predictions.

    Returns:
        Which predicted class stands for which class of the labels, of those that moved, and the mean IoU under the best
        order; None if the order is right as far as can be seen.

    Example:
        >>> other_order(np.array([[9, 1, 0], [0, 0, 5], [0, 5, 0]]))      # 1 and 2 change places
        ({1: 2, 2: 1}, 0.9111111111111111)
        >>> other_order(np.array([[9, 1, 0], [0, 0, 5], [0, 0, 5]]))      # all of 1 is taken for 2
    """
    counts = class_counts(confusion)
    _, labels, predictions = counts
    union = labels[:, None] + predictions[None] - confusion
    # IoU of each label with each predicted class; its diagonal is the usual one.
    overlap = np.divide(confusion, union, out=np.zeros(confusion.shape), where=(union > 0) & (labels[:, None] > 0))
    order = linear_sum_assignment(overlap, maximize=True)[1]
    own = np.nan_to_num(iou(counts))
    moved = {
        number: int(place)
        for number, place in enumerate(order)
        if place != number
        and labels[number] >= _SMALLEST * labels.sum()
        and overlap[number, place] >= _RECOGNISED
        and own[number] < _MISSED
    }
    if len(moved) < 3 and not any(moved.get(place) == number for number, place in moved.items()):
        return None
    return moved, float(overlap[np.arange(len(order)), order].sum() / (labels > 0).sum())

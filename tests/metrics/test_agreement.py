"""Agreement beyond chance, and classes that have moved, on confusion matrices whose figures are known."""

import numpy as np
import pytest

from lightning_attack.metrics.agreement import agreement, other_order

LABELS = np.array([700, 100, 80, 60, 40, 20])
RIGHT = np.diag(LABELS)


def test_predictions_that_do_not_look_at_the_image_are_chance_whatever_their_frequencies():
    for frequencies in ([1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [4, 2, 2, 1, 1, 0]):
        found = agreement(np.outer(LABELS, frequencies))
        assert found.miou == pytest.approx(found.chance, abs=1e-12)
        assert (found.skill, found.kappa) == pytest.approx((0, 0), abs=1e-12)


def test_a_mixture_of_right_and_blind_has_its_share_as_kappa():
    """Of all pixels a share is right, the others are drawn with the labels' frequencies."""
    share, pixels = 0.25, LABELS.sum()
    confusion = share * RIGHT + (1 - share) * np.outer(LABELS, LABELS) / pixels
    assert agreement(confusion).kappa == pytest.approx(share)
    assert agreement(RIGHT)[2:] == (1, 1)


def test_one_class_alone_says_nothing():
    assert agreement(np.diag([1000, 0])) is None
    assert agreement(np.array([[995, 0], [5, 0]])) is None
    assert agreement(np.zeros((3, 3), int)) is None


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5, 0], [0, 1, 2, 4, 3, 5], [5, 4, 3, 2, 1, 0]])
def test_classes_that_moved_are_found_with_the_mean_iou_that_they_would_have(order):
    found = np.zeros((6, 6), int)
    found[np.arange(6), order] = LABELS
    moved, best = other_order(found)
    assert moved == {label: place for label, place in enumerate(order) if label != place}
    assert best == 1


def test_mistakes_are_no_other_order():
    assert other_order(RIGHT) is None
    confused = RIGHT.copy()
    confused[3] = [0, 0, 60, 0, 0, 0]  # all of 3 is taken for 2
    confused[5] = [0, 0, 0, 0, 20, 0]  # and all of 5 for 4
    assert other_order(confused) is None
    assert other_order(np.outer(LABELS, [1, 0, 0, 0, 0, 0])) is None
    assert other_order(np.outer(LABELS, [1, 2, 3, 1, 0, 1])) is None

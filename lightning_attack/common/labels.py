"""What label maps have in common."""

from __future__ import annotations

from collections.abc import Sequence

IGNORE_INDEX = 255
"""Label of pixels that have no class and do not count."""
ABSTAINED = -1
"""Predicted class of pixels for which a network abstains: wrong, whatever the label."""


def class_colour(number: int) -> tuple[int, int, int]:
    """PASCAL VOC's color (red, green, blue) of a class, made of the bits of its number.

    Ignored pixels are white, and those without a decision (`ABSTAINED`) magenta, which no class is.

    Example:
        >>> [class_colour(number) for number in (0, 1, 2, 9, IGNORE_INDEX, ABSTAINED)]
        [(0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 0, 0), (255, 255, 255), (255, 0, 255)]
    """
    if number == IGNORE_INDEX:
        return 255, 255, 255
    if number == ABSTAINED:
        return 255, 0, 255
    red, green, blue = (sum((number >> (3 * bit + place) & 1) << (7 - bit) for bit in range(8)) for place in range(3))
    return red, green, blue


def names_of_numbers(classes: Sequence[str]) -> dict[int, str]:
    """What stands for each number in a label map: the classes, and pixels without one.

    Example:
        >>> names_of_numbers(["sky", "road"])
        {0: 'sky', 1: 'road', 255: 'ignored', -1: 'abstained'}
    """
    return dict(enumerate(classes)) | {IGNORE_INDEX: "ignored", ABSTAINED: "abstained"}


def class_advice(data: int, networks: int) -> str:
    """What to do if the data, or another network, has another number of classes than a network; 0: it names none.

    Example:
        >>> class_advice(1, 2)[:31]
        'name the background too, first:'
    """
    if data == 1 and networks == 2:
        return "name the background too, first: classes=[background, thing]; a binary network has these two classes"
    if not data:
        return "choose data with labels, and networks of the same classes"
    if networks == data + 1:
        return (
            "is one more of its classes void, or the background? ClassMap leaves it out, by groups: [[0], [1], ...] "
            "with the network's number of each class"
        )
    return "choose networks with the classes of the data, or map theirs to these by the groups of ClassMap"

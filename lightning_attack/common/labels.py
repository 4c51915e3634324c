"""What label maps have in common."""

IGNORE_INDEX = 255
"""Label of pixels that have no class and do not count."""


def class_colour(number: int) -> tuple[int, int, int]:
    """PASCAL VOC's color (red, green, blue) of a class, made of the bits of its number; ignored pixels are white.

    Example:
        >>> [class_colour(number) for number in (0, 1, 2, 9, IGNORE_INDEX)]
        [(0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 0, 0), (255, 255, 255)]
    """
    if number == IGNORE_INDEX:
        return 255, 255, 255
    red, green, blue = (sum((number >> (3 * bit + place) & 1) << (7 - bit) for bit in range(8)) for place in range(3))
    return red, green, blue


def class_advice(data: int, networks: int) -> str:
    """What to do if the data has another number of classes than the networks; 0: it names none.

    Example:
        >>> class_advice(1, 2)[:31]
        'name the background too, first:'
    """
    if data == 1 and networks == 2:
        return "name the background too, first: classes=[background, thing]; a binary network has these two classes"
    return "choose data with labels, and networks of the same classes"

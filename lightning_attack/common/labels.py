"""What label maps have in common."""

IGNORE_INDEX = 255
"""Label of pixels that have no class and do not count."""


def class_advice(data: int, networks: int) -> str:
    """What to do if the data has another number of classes than the networks; 0: it names none.

    Example:
        >>> class_advice(1, 2)[:31]
        'name the background too, first:'
    """
    if data == 1 and networks == 2:
        return "name the background too, first: classes=[background, thing]; a binary network has these two classes"
    return "choose data with labels, and networks of the same classes"

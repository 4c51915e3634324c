"""What label maps have in common."""

IGNORE_INDEX = 255
"""Label of pixels that have no class and do not count."""


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

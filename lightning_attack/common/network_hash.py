"""The form of the hashes by which runs tell networks apart; `models.fingerprint` makes them, `runs` keeps them."""

CURRENT = "v2:"
"""What a hash begins with. Those of earlier versions, without it, depended on the names of networks, too."""
WITH_GRAPH = "v2g:"
"""What one begins with in which there is a graph, as of an exported network. Earlier ones had its weights only."""


def is_current(mark: object) -> bool:
    """Whether a hash does not depend on names, as those of the first version did.

    Example:
        >>> is_current("v2:91b4b618efb863bb"), is_current("91b4b618efb863bb")
        (True, False)
    """
    return str(mark).startswith((CURRENT, WITH_GRAPH))


def are_comparable(one: object, other: object) -> bool:
    """Whether two hashes are current and of one form, so that they tell whether networks are the same.

    Example:
        >>> are_comparable("v2:91b4b618efb863bb", "v2:0"), are_comparable("v2:91b4b618efb863bb", "v2g:0")
        (True, False)
    """
    return is_current(one) and is_current(other) and str(one).partition(":")[0] == str(other).partition(":")[0]

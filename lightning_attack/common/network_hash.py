"""The form of the hashes by which runs tell networks apart; `models.fingerprint` makes them, `runs` keeps them."""

CURRENT = "v3:"
"""What a hash begins with."""
WIDER = "v4:"
"""The same, of networks of which the hashes before knew less: of TorchScript, and with values of the user's classes."""
SECOND = "v2:"
"""Those before depended on the engine, and of exported networks they knew the weights only. The first had no such
beginning, and depended on the names of networks too."""


def is_current(mark: object) -> bool:
    """Whether a hash is of the form of now.

    Example:
        >>> is_current("v3:91b4b618efb863bb"), is_current("v2:91b4b618efb863bb"), is_current("91b4b618efb863bb")
        (True, False, False)
    """
    return str(mark).startswith((CURRENT, WIDER))


def are_comparable(one: object, other: object) -> bool:
    """Whether two hashes tell whether networks are the same: both are of the form of now.

    Example:
        >>> are_comparable("v3:91b4b618efb863bb", "v3:0"), are_comparable("v3:91b4b618efb863bb", "v2:0")
        (True, False)
    """
    return is_current(one) and is_current(other)

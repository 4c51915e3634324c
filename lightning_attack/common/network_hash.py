"""The form of the hashes by which runs tell networks apart; `models.fingerprint` makes them, `runs` keeps them."""

CURRENT = "v2:"
"""What a hash begins with. Those of earlier versions, without it, depended on the names of networks, too."""


def is_current(mark: object) -> bool:
    """Whether a hash is of the current form: of these, equal ones stand for the same network and others do not.

    Example:
        >>> is_current("v2:91b4b618efb863bb"), is_current("91b4b618efb863bb")
        (True, False)
    """
    return str(mark).startswith(CURRENT)

"""`counted`: numbers of things as one reads them."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "image"), counted(2, "image")
        ('1 image', '2 images')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"

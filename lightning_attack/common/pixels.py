"""Pixels: the levels of 8-bit images, and sizes of [0, 1] pixels as numbers or fractions such as `8/255`."""

from __future__ import annotations

import math
from typing import Any, TypeVar

LEVELS = 255
"""Steps between black and white in 8-bit images: pixels of [0, 1] images on their grid are multiples of 1/255."""

Pixels = float | str
"""A size in pixels of [0, 1] images: `0.03`, `"8/255"`."""

Values = TypeVar("Values")


def from_levels(levels: Values) -> Values:
    """8-bit levels 0..255 as values in [0, 1]: k/255, rounded once, on every device.

    CUDA divides by a number of the host as if multiplying by the rounded 1/255, which misses every second value by a
    bit; by a tensor of the device it divides. A zero is +0, as in whoever reads the saved image: rounding leaves -0
    behind, which equals it and has other bits, and defences draw their random numbers from the bits.

    Args:
        levels: a floating tensor of whole numbers, of any shape.

    Example:
        >>> import torch
        >>> from_levels(torch.tensor([0.0, 51.0, 255.0]))
        tensor([0.0000, 0.2000, 1.0000])
        >>> torch.signbit(from_levels(torch.tensor(-0.2).round()))
        tensor(False)
    """
    tensor: Any = levels  # this room knows no torch
    return tensor / tensor.new_full((), LEVELS) + 0.0  # type: ignore[no-any-return]


def in_levels(size: float, digits: int = 4) -> str:
    """A size of [0, 1] pixels as people say it, in levels of 8-bit images.

    Example:
        >>> in_levels(8 / 255), in_levels(0.03)
        ('8/255', '7.65/255')
    """
    return f"{size * LEVELS:.{digits}g}/{LEVELS}"


def parse_pixels(value: Pixels, name: str = "eps") -> float:
    """The number that `value` says; it must be above 0.

    Args:
        value: a number, or a string with a number or a fraction.
        name: what the value is, for the error.

    Raises:
        ValueError: not a number, not finite, or not above 0.

    Example:
        >>> parse_pixels("51/255"), parse_pixels(0.03)
        (0.2, 0.03)
        >>> parse_pixels("-8/255")
        Traceback (most recent call last):
            ...
        ValueError: eps='-8/255': must be a number above 0, such as 0.03 or 8/255
    """
    try:
        numerator, slash, denominator = str(value).partition("/")
        number = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}={value!r}: must be a number above 0, such as 0.03 or 8/255")
    return number


def zero_or_more(value: Pixels, name: str) -> float:
    """A size in [0, 1] pixels that may be 0.

    Raises:
        ValueError: it is below 0 or no number; the message names the argument.
    """
    if value in (0, "0"):
        return 0.0
    try:
        return parse_pixels(value, name)
    except ValueError as error:
        raise ValueError(f"{error}, or 0 for no noise") from None

"""Differences between attacks, as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lightning_attack.common.counted import counted
from lightning_attack.report.intervals import LEVEL, Interval
from lightning_attack.report.sheet import Sheet


def ends(interval: Interval, sign: str = "") -> str:
    """The ends of an interval in percent, with so many decimals that one beside 0 is not shown as 0.

    Args:
        interval: with ends.
        sign: `+` to show it of numbers above 0, too.

    Example:
        >>> ends(Interval(0.01, 0.004, 0.026, 48)), ends(Interval(0.01, 0.0004, 0.026, 48), "+")
        ('0.4..2.6', '+0.04..+2.60')
    """
    both = 100 * interval.low, 100 * interval.high
    decimals = next((n for n in (1, 2, 3) if all(one == 0 or round(one, n) for one in both)), 1)
    return "..".join(f"{one + 0.0:{sign}.{decimals}f}" for one in both)


def sentence(label: str, against: str, interval: Interval) -> str:
    """A difference of mIoU in words, which say so where it is not significant.

    Example:
        >>> sentence("transegpgd", "pgd", Interval(-0.031, -0.04, -0.022, 48))
        'transegpgd is 3.1 points lower than pgd (95 % 2.2..4.0, 48 images)'
        >>> sentence("transegpgd", "pgd", Interval(0.004, -0.013, 0.021, 48))
        'transegpgd does not really differ from pgd: 0.4 points higher (95 % -1.3..2.1, 48 images)'
        >>> sentence("transegpgd", "pgd", Interval(-0.01, -0.026, -0.0004, 8))
        'transegpgd is 1.0 points lower than pgd (95 % 0.04..2.60, 8 images)'
    """
    lower = interval.value < 0
    shown = -interval if lower else interval
    points = f"{100 * shown.value:.1f} points {'lower' if lower else 'higher'}"
    if math.isnan(shown.low):
        return f"{label} is {points} than {against} (no interval: only {counted(shown.images, 'image')})"
    between = f"({100 * LEVEL:.0f} % {ends(shown)}, {counted(shown.images, 'image')})"
    if interval.significant:
        return f"{label} is {points} than {against} {between}"
    return f"{label} does not really differ from {against}: {points} {between}"


def sentences(sheet: Sheet) -> Iterator[str]:
    """One sentence for each run and target that has a baseline, with source and target before it."""
    for section in sheet.sections:
        for row in section.rows:
            for cell in row.cells.values():
                if cell.difference and row.against:
                    place = f"{section.source} -> {cell.target}{' (white box)' if cell.white_box else ''}"
                    yield f"{place}: {sentence(row.label, row.against, cell.difference)}"

"""Differences between attacks, as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lightning_attack.common.counted import counted
from lightning_attack.report.intervals import LEVEL, Interval
from lightning_attack.report.sheet import Sheet


def sentence(label: str, against: str, interval: Interval) -> str:
    """A difference of mIoU in words, which say so where it is not significant.

    Example:
        >>> sentence("transegpgd", "pgd", Interval(-0.031, -0.04, -0.022, 48))
        'transegpgd is 3.1 points lower than pgd (95 % 2.2..4.0, 48 images)'
        >>> sentence("transegpgd", "pgd", Interval(0.004, -0.013, 0.021, 48))
        'transegpgd does not really differ from pgd: 0.4 points higher (95 % -1.3..2.1, 48 images)'
    """
    lower = interval.value < 0
    shown = -interval if lower else interval
    points = f"{100 * shown.value:.1f} points {'lower' if lower else 'higher'}"
    if math.isnan(shown.low):
        return f"{label} is {points} than {against} (no interval: only {counted(shown.images, 'image')})"
    ends = f"({100 * LEVEL:.0f} % {100 * shown.low:.1f}..{100 * shown.high:.1f}, {counted(shown.images, 'image')})"
    if interval.significant:
        return f"{label} is {points} than {against} {ends}"
    return f"{label} does not really differ from {against}: {points} {ends}"


def sentences(sheet: Sheet) -> Iterator[str]:
    """One sentence for each run and target that has a baseline, with source and target before it."""
    for section in sheet.sections:
        for row in section.rows:
            for cell in row.cells.values():
                if cell.difference and row.against:
                    place = f"{section.source} -> {cell.target}{' (white box)' if cell.white_box else ''}"
                    yield f"{place}: {sentence(row.label, row.against, cell.difference)}"

"""Markdown tables whose cells may hold any text."""

from __future__ import annotations

from collections.abc import Iterable

_MARKS = str.maketrans({"&": "&amp;", "<": "&lt;"} | {mark: f"\\{mark}" for mark in "\\`*|"})


def escape(text: str) -> str:
    r"""Escape text for one cell of a Markdown table: it is shown as it is, on one line.

    Example:
        >>> print(escape("a|b *c* <d>\n e_f"))
        a\|b \*c\* &lt;d> e_f
    """
    return " ".join(text.split()).translate(_MARKS)


def table_row(cells: Iterable[str]) -> str:
    """One line of a table, from cells that are Markdown already.

    Example:
        >>> table_row(["**1**", "2"])
        '| **1** | 2 |'
    """
    return f"| {' | '.join(cells)} |"

"""Tables in Markdown, of names that may hold anything."""

from __future__ import annotations

from collections.abc import Iterable

_MARKS = str.maketrans({"&": "&amp;", "<": "&lt;"} | {mark: f"\\{mark}" for mark in "\\`*|"})


def plain(text: str) -> str:
    r"""Text that Markdown shows as it is, in one line.

    Example:
        >>> print(plain("a|b *c* <d>\n e_f"))
        a\|b \*c\* &lt;d> e_f
    """
    return " ".join(text.split()).translate(_MARKS)


def row(cells: Iterable[str]) -> str:
    """A line of a table; the cells are Markdown.

    Example:
        >>> row(["**1**", "2"])
        '| **1** | 2 |'
    """
    return f"| {' | '.join(cells)} |"

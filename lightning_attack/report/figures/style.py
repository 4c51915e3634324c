"""How figures look, and how text and legends are made to fit into them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.textpath import TextPath

WIDTHS = {"column": 3.25, "page": 6.875}
"""Inches: a column of a page of two, and the whole page, as conferences of computer vision have them."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of M. Okabe and K. Ito, "Color Universal Design" (2008), for color-blind readers; its yellow is too pale."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
CLEAN = "0.45"
GREY = "0.6"


def rc(font: str, size: float) -> dict[str, object]:
    """Settings of matplotlib for a figure with text of a size in points.

    Fonts are embedded as TrueType, which publishers ask for; in SVG, text stays text. Names are never read as formulas.
    """
    return {
        "font.family": font,
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "legend.fontsize": size,
        "legend.frameon": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.1,
        "lines.markersize": 3.6,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "lightning_attack",
        "text.parse_math": False,
        "text.usetex": False,
    }


def width_of(text: str, size: float) -> float:
    """The width of a text in inches, in the font that is set."""
    lines = [line for line in text.split("\n") if line.strip()]
    return max((TextPath((0, 0), line, size=size).get_extents().width for line in lines), default=0.0) / 72


def fitted(text: str, inches: float, size: float) -> str:
    r"""A text in as many lines as it takes to be no wider; it is broken after spaces and signs, else anywhere.

    Example:
        >>> fitted("deeplabv3plus_regnetx_002", 1.0, 8)
        'deeplabv3plus_\nregnetx_002'
    """
    lines = [""]
    for part in _parts(text):
        if lines[-1] and width_of(lines[-1] + part, size) > inches:
            lines.append("")
        for sign in [part] if width_of(part, size) <= inches else part:
            if lines[-1] and width_of(lines[-1] + sign, size) > inches:
                lines.append("")
            lines[-1] += sign
    return "\n".join(line.strip() for line in lines)


def breaks_well(text: str, inches: float, size: float) -> bool:
    """Whether `fitted` breaks a text after spaces and signs only."""
    return all(width_of(part, size) <= inches for part in _parts(text))


def _parts(text: str) -> list[str]:
    return re.findall(r".[^ _\-/,→]*[ _\-/,]*", text)


def in_a_row(count: int, fit: int) -> int:
    """How many panels stand in a row where so many fit: the rows are as even as can be.

    Example:
        >>> in_a_row(4, 3), in_a_row(3, 3), in_a_row(7, 3)
        (2, 3, 3)
    """
    return -(-count // -(-count // max(1, fit)))


def add_legend(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], size: float, place: str = "upper"
) -> Legend:
    """A legend above everything (or `lower`), in as many columns as fit into the figure's width."""
    width = figure.get_figwidth() - 0.1
    shown = [fitted(label, width - 0.5, size) for label in labels]
    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(len(shown), 0, -1):
        legend = figure.legend(
            handles, shown, loc=f"outside {place} center", ncols=columns, handlelength=1.8, columnspacing=1.2,
            handletextpad=0.5, borderaxespad=0.2, borderpad=0.1, labelspacing=0.3,
        )  # fmt: skip
        if columns == 1 or legend.get_window_extent(renderer).width / figure.dpi <= width:
            break
        legend.remove()
    return legend


def height_of(figure: Figure, legend: Legend) -> float:
    """The height of a legend in inches."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return float(legend.get_window_extent(renderer).height / figure.dpi)

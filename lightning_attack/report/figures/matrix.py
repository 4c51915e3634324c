"""Source against target: for each attack a matrix of mIoU, with that of the clean images above."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from lightning_attack.report.figures.entries import adversarial, clean, entries
from lightning_attack.report.figures.style import add_legend, breaks_well, fitted, height_of, in_a_row, width_of
from lightning_attack.report.groups import Group
from lightning_attack.report.intervals import Interval
from lightning_attack.report.row_names import Called, own_name

COLOUR_MAP = "cividis"
"""Of equal steps of lightness, also for color-blind readers."""
CELL = 0.34, 0.56
"""Height of a cell and its least width in inches."""
STEEP = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
"""How names of columns stand that do not fit above each other."""
_CLEAN = "clean"
WHITE_BOX = "#D55E00"


@dataclass(frozen=True)
class Cell:
    """A source (row) and a target (column)."""

    miou: Interval
    white_box: bool


Matrix = Mapping[tuple[str, str], Cell]


def matrices(
    group: Group, targets: Sequence[str], mean: bool, draws: int, called: Called = own_name
) -> tuple[dict[str, Interval], dict[str, Matrix]]:
    """The mIoU of each target on the clean images, and by attack that of each source and target."""
    on_clean: dict[str, Interval] = {}
    found: dict[str, dict[tuple[str, str], Cell]] = {}
    for entry in entries(group, mean, called):
        for target in targets:
            if entry.images(target, group):
                cell = Cell(adversarial(entry, target, group, draws), entry.first.targets[target])
                found.setdefault(entry.label, {})[entry.first.source, target] = cell
                on_clean.setdefault(target, clean(entry, target, group, draws))
    return {target: on_clean[target] for target in targets if target in on_clean}, dict(found)


def draw_matrices(
    on_clean: Mapping[str, Interval],
    found: Mapping[str, Matrix],
    width: float,
    size: float,
    columns: int | None,
    named: Callable[[str], str],
) -> Figure:
    """A figure of matrices; the arguments as for `curves.draw_curves`."""
    targets = list(on_clean)
    sources = list(dict.fromkeys(source for matrix in found.values() for source, _ in matrix))
    beside = min(1.1, max(width_of(named(name), size) for name in [*sources, _CLEAN])) + 0.35
    fit = max(1, int((width - beside) / (CELL[1] * len(targets) + 0.1)))
    columns = in_a_row(len(found), columns or fit)
    rows = -(-len(found) // columns)
    cell = (width - beside) / columns / len(targets) - 0.06
    figure = Figure(figsize=(width, 1), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    top = max(interval.value for interval in on_clean.values() if not math.isnan(interval.value)) or 1.0
    names = [named(target) for target in targets]
    steep = not all(breaks_well(name, cell, size - 1) for name in names)
    headings = names if steep else [fitted(name, cell, size - 1) for name in names]
    titles = [fitted(label, cell * len(targets), size) for label in found]
    for axes, title, matrix in zip(grid.flat, titles, found.values(), strict=False):
        axes.set_title(title)
        _matrix(axes, on_clean, matrix, sources, targets, top, cell, size)
        axes.set_xticks(range(len(targets)), headings, **(STEEP if steep else {}))
        axes.set_yticks(range(-1, len(sources)), [fitted(named(name), 1.1, size) for name in (_CLEAN, *sources)])
        axes.tick_params(length=0)
    for number in range(len(found), rows * columns):
        grid.flat[number].remove()
        grid.flat[number - columns].tick_params(labelbottom=True)
    figure.supxlabel("target", fontsize=size)
    figure.supylabel("source", fontsize=size)
    white_box = Patch(facecolor="none", edgecolor=WHITE_BOX, linewidth=1.3)
    explained = Line2D([], [], linestyle="none"), "mIoU (%), below it its 95 % interval"
    legend = add_legend(figure, [white_box, explained[0]], ["white box", explained[1]], size)
    above = 1 + max(title.count("\n") for title in titles)
    below = (
        1.3 * size / 72 * (1 + max(heading.count("\n") for heading in headings))
        if not steep
        else 0.6 * max(width_of(name, size - 1) for name in names)
    )
    height = CELL[0] * (len(sources) + 1) + (1.5 * above + 1) * size / 72
    bottoms = 2 if len(found) % columns else 1
    figure.set_figheight(rows * height + bottoms * below + 3 * size / 72 + height_of(figure, legend))
    return figure


def _matrix(
    axes: Axes,
    on_clean: Mapping[str, Interval],
    matrix: Matrix,
    sources: Sequence[str],
    targets: Sequence[str],
    top: float,
    cell: float,
    size: float,
) -> None:
    """One matrix: the row of the clean images at -1, sources from 0."""
    cells = {(-1, column): Cell(on_clean[target], False) for column, target in enumerate(targets)}
    cells |= {(sources.index(source), targets.index(target)): one for (source, target), one in matrix.items()}
    values = np.full((len(sources) + 1, len(targets)), np.nan)
    for (row, column), one in cells.items():
        values[row + 1, column] = one.miou.value
    edges = np.arange(len(targets) + 1) - 0.5, np.arange(len(sources) + 2) - 1.5
    colours = colormaps[COLOUR_MAP]
    axes.pcolormesh(*edges, values, vmin=0, vmax=top, cmap=colours, edgecolors="white", linewidth=0.8)
    for (row, column), one in cells.items():
        share = 0 if math.isnan(one.miou.value) else one.miou.value / top
        red, green, blue, _ = colours(share)
        colour = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        number = "–" if math.isnan(one.miou.value) else f"{100 * one.miou.value:.1f}"
        ends = "" if math.isnan(one.miou.low) else f"{100 * one.miou.low:.1f}–{100 * one.miou.high:.1f}"
        axes.text(column, row - 0.16 * bool(ends), number, ha="center", va="center", color=colour, fontsize=size)
        small = next((one for one in (size - 1.5, size - 2, size - 2.5) if width_of(ends, one) <= cell), size - 3)
        axes.text(column, row + 0.24, ends, ha="center", va="center", color=colour, fontsize=small)
        if one.white_box:
            place = column - 0.46, row - 0.46
            axes.add_patch(Rectangle(place, 0.92, 0.92, fill=False, edgecolor=WHITE_BOX, linewidth=1.3, zorder=3))
    axes.axhline(-0.5, color="white", linewidth=3, zorder=1.5)
    axes.set_ylim(len(sources) - 0.5, -1.5)
    for spine in axes.spines.values():
        spine.set_visible(False)

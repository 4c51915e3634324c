"""Curves of mIoU with intervals: a panel for each source and target, a line for each attack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lightning_attack.report.figures.entries import Axis, Facet, Point
from lightning_attack.report.figures.style import CLEAN, COLOURS, MARKERS, add_legend, fitted, height_of, in_a_row
from lightning_attack.report.intervals import Interval

NARROWEST = 1.9
"""Width in inches below which a panel is not drawn beside others."""


def draw_curves(
    axis: Axis, facets: Sequence[Facet], width: float, size: float, columns: int | None, named: Callable[[str], str]
) -> Figure:
    """A figure of curves; bands are intervals, and single points have bars instead.

    Args:
        axis: what the horizontal axis shows.
        facets: one or more.
        width: in inches.
        size: of the text in points.
        columns: panels in a row; None = as many as fit.
        named: what attacks and networks are called.
    """
    columns = in_a_row(len(facets), columns or int(width / NARROWEST))
    rows = -(-len(facets) // columns)
    figure = Figure(figsize=(width, 1), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    labels = list(dict.fromkeys(label for facet in facets for label in facet.lines))
    sources = {facet.source for facet in facets}
    for axes, facet in zip(grid.flat, facets, strict=False):
        title = named(facet.target) + (f" ({facet.behind})" if facet.behind else "")
        title += " (white\u00a0box)" if facet.white_box else ""
        if len(sources) > 1:
            title = f"{named(facet.source)} → {title}"
        axes.set_title(fitted(title, width / columns - 0.45, size))
        _facet(axes, axis, facet, labels)
    for number in range(len(facets), rows * columns):
        grid.flat[number].remove()
        grid.flat[number - columns].tick_params(labelbottom=True)
    ends = [1e-3]  # where no image has a label, there is no mIoU
    ends += [end for facet in facets for interval in _intervals(facet) for end in (interval.value, interval.high)]
    top = max(100 * end for end in ends if not math.isnan(end))
    grid[0, 0].set_ylim(0, min(100, 1.05 * top))
    if axis.from_zero:
        grid[0, 0].set_xlim(left=0)
    grid[0, 0].xaxis.set_major_locator(MaxNLocator(5, integer=axis.from_zero))
    figure.supxlabel(axis.title, fontsize=size)
    figure.supylabel("adversarial mIoU (%)", fontsize=size)
    handles: list[Artist] = [Line2D([], [], **_look(number)) for number in range(len(labels))]
    handles.append(Line2D([], [], color=CLEAN, linestyle="--", linewidth=0.8))
    words = [*labels, "clean images"]
    if any(facet.undefended for facet in facets):
        handles.append(Line2D([], [], color=CLEAN, linestyle=":", linewidth=1))
        words.append("without the defence")
    legend = add_legend(figure, handles, words, size)
    titles = max(axes.get_title().count("\n") for axes in grid.flat) + 1
    height = min(0.7 * width / columns, 1.5) + (2.2 + titles * 1.2) * size / 72
    figure.set_figheight(rows * height + 1.6 * size / 72 + height_of(figure, legend))
    return figure


def _facet(axes: Axes, axis: Axis, facet: Facet, labels: Sequence[str]) -> None:
    if facet.clean_line:
        ends = [(point.x, 100 * point.miou.value) for point in facet.clean_line]
        axes.plot(*zip(*ends, strict=True), color=CLEAN, linestyle="--", linewidth=0.8, zorder=1)
    else:
        axes.axhline(100 * facet.clean.value, color=CLEAN, linestyle="--", linewidth=0.8, zorder=1)
    for label, interval in facet.undefended.items():
        color = _look(labels.index(label))["color"]
        axes.axhline(100 * interval.value, color=color, linestyle=":", linewidth=1, zorder=1)
    for label, points in facet.lines.items():
        look = _look(labels.index(label))
        line = [*([Point(0, facet.clean)] if axis.from_clean else []), *points]
        places, values = [point.x for point in line], [100 * point.miou.value for point in line]
        low, high = ([100 * getattr(point.miou, end) for point in line] for end in ("low", "high"))
        axes.plot(places, values, clip_on=False, zorder=3, **look)
        if len(line) > 1:
            axes.fill_between(places, low, high, color=look["color"], alpha=0.16, linewidth=0, zorder=2)
        elif not math.isnan(low[0]):
            reach = [[values[0] - low[0]], [high[0] - values[0]]]
            axes.errorbar(places, values, reach, color=look["color"], capsize=2, linewidth=0.8, zorder=2)


def _look(number: int) -> dict[str, str]:
    """Color and marker of a line; there are more pairs of them than lines that anybody could read."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _intervals(facet: Facet) -> list[Interval]:
    lines = [facet.clean_line, *facet.lines.values()]
    return [facet.clean, *facet.undefended.values(), *(point.miou for points in lines for point in points)]

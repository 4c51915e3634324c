"""Charts of the page as plotly figures; all names in them are escaped.

What attacks, networks and classes are called is for a `Display` to say; those that do without one show the runs' names.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from lightning_attack.report.facts import backward_passes, radius, steps
from lightning_attack.report.figures.display import Display
from lightning_attack.report.row_names import line_names
from lightning_attack.report.strengths import families
from lightning_attack.runs.folder import Run

COLOURS = ("#1f77b4", "#d62728", "#26862b", "#7d55ad", "#b85c00", "#0e7f8f", "#8c564b", "#b83280", "#75751a", "#444444")
"""All of a contrast of 4.5 or more to white."""
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "pentagon")
PATTERNS = ("", "/", "x", ".")
"""Of bars, where there are more than colors."""
FLIPS = {
    "distance": ("Flipped pixels by distance to an edge", "pixels to the nearest edge of a label"),
    "size": ("Flipped pixels by size of object", "share of the image that the object has"),
}
CLEAN, ADVERSARIAL = "#4f86b5", "#c0392b"
TEXT, LINES = "#1a1a1a", "#666666"
FRAME = {"color": TEXT, "width": 1.5}
"""Around white boxes."""
HEAT = ((0, "#ee8a5a"), (0.5, "#f7c6a9"), (1, "#fdf6f1"))
"""Strong attacks stand out; `TEXT` has a contrast of 7 or more to all of these colors."""


_PLAIN = Display({})


def heat_map(runs: Sequence[Run], names: Sequence[str], title: str = "", display: Display = _PLAIN) -> go.Figure:
    """The adversarial mIoU of every target (columns) in every run, in percent: attacks, and for each its sources.

    The first row has the mIoU on the clean images.

    Args:
        runs: of one table.
        names: what each is called; the runs of several sources may share a name.
        title: of the picture.
        display: names of networks.
    """
    order = list(dict.fromkeys(names))
    ordered = sorted(zip(names, runs, strict=True), key=lambda pair: order.index(pair[0]))  # stable: runs keep theirs
    targets = list(dict.fromkeys(target for run in runs for target in run.targets))
    scores = [{row["target"]: row for row in run.summary["targets"]} for _, run in ordered]
    clean = [next((_percent(one[target]["clean_miou"]) for one in scores if target in one), None) for target in targets]
    cells = [clean, *([_percent(one.get(target, {}).get("adversarial_miou")) for target in targets] for one in scores)]
    white_box = [[False] * len(targets), *([bool(one.get(target, {}).get("white_box")) for target in targets]
                                           for one in scores)]  # fmt: skip
    words = [
        ["" if value is None else f"{value:.1f}" + " (white box)" * white for value, white in zip(*row, strict=True)]
        for row in zip(cells, white_box, strict=True)
    ]
    frames = [
        {"type": "rect", "x0": x - 0.47, "x1": x + 0.47, "y0": y - 0.44, "y1": y + 0.44, "line": FRAME}
        for y, row in enumerate(white_box)
        for x, white in enumerate(row)
        if white
    ]
    several = len({run.source for run in runs}) > 1
    labels = ["clean images", *(f"{name} on {display(run.source)}" if several else name for name, run in ordered)]
    columns = [_escaped(display(target)) for target in targets]
    heat = go.Heatmap(
        x=list(range(len(targets))),  # by number: two columns or rows of one name stay two
        y=list(range(len(labels))),
        z=cells,
        text=words,
        texttemplate="%{z:.1f}",
        textfont={"color": TEXT, "size": 12 if len(targets) <= 16 else 9},  # else all are as small as the longest needs
        customdata=[[(_escaped(label), column) for column in columns] for label in labels],
        hovertemplate="%{customdata[0]}<br>target %{customdata[1]}<br>mIoU %{text}<extra></extra>",
        colorscale=HEAT,
        zmin=0,
        zmax=max((value for value in clean if value), default=100),
        xgap=2,
        ygap=2,
        colorbar={"thickness": 12},
    )
    figure = _figure(title, "", "", height=150 + 30 * len(labels))
    figure.add_trace(heat).update_layout(shapes=frames).update_xaxes(showgrid=False, zeroline=False, **_ticks(columns))
    return figure.update_yaxes(autorange="reversed", showgrid=False, zeroline=False, **_ticks(map(_escaped, labels)))


def _ticks(words: Iterable[str]) -> dict[str, Any]:
    """Words at 0, 1, 2, ... of an axis."""
    texts = list(words)
    return {"tickmode": "array", "tickvals": list(range(len(texts))), "ticktext": texts}


def step_curves(
    runs: Sequence[Run], names: Sequence[str], title: str = "", display: Display = _PLAIN
) -> list[go.Figure]:
    """For each source the mIoU of its targets over the steps, of runs that kept it; white boxes are dashed.

    Args:
        runs: of one table.
        names: what each is called.
        title: what stands before the source in the titles.
        display: names of networks.
    """
    figures = {}
    for run, name in zip(runs, names, strict=True):
        curve = run.summary.get("step_curve")
        if not curve:
            continue
        if run.source not in figures:
            figures[run.source] = _figure(
                f"{title}{title and ', '}source {display(run.source)}", "steps", "mIoU (percent)"
            )
            _from_zero(figures[run.source], [one for one in runs if one.source == run.source], display, every=True)
        colour = COLOURS[list(dict.fromkeys(names)).index(name) % len(COLOURS)]
        for number, (target, values) in enumerate(curve["targets"].items()):
            dash = "dash" if run.targets.get(target) else "solid"
            marks = {"symbol": SYMBOLS[number % len(SYMBOLS)], "color": colour}
            figures[run.source].add_trace(
                go.Scatter(
                    x=curve["steps"],
                    y=[_percent(value) for value in values],
                    name=_escaped(f"{name}: {display(target)}"),
                    mode="lines+markers",
                    line={"color": colour, "dash": dash},
                    marker=marks,
                )
            )
    return [_with_legend(figure) for figure in figures.values()]


def transfer_curves(runs: Sequence[Run], title: str = "", display: Display = _PLAIN) -> list[go.Figure]:
    """Transfer mIoU (of targets that are no white box) against radius, steps and backward passes, where they differ.

    Args:
        runs: of one table, for others are no points of one line.
        title: of the pictures.
        display: names of attacks and networks.
    """
    figures = []
    for norm in dict.fromkeys(found[0] for run in runs if (found := radius(run))):
        scale, unit = (255, " / 255") if norm == "Linf" else (1, "")
        values = [scale * found[1] if (found := radius(run)) and found[0] == norm else None for run in runs]
        figures.append(_against(runs, values, f"eps ({norm}{unit})", "eps", display))
    figures.append(_against(runs, list(map(steps, runs)), "steps", "steps", display))
    figures.append(_against(runs, list(map(backward_passes, runs)), "backward passes per image", "steps", display))
    return [figure.update_layout(title={"text": _escaped(title)}) for figure in figures if figure]


def strength_curves(
    runs: Sequence[Run], names: Sequence[str], title: str = "", display: Display = _PLAIN
) -> list[go.Figure]:
    """The mIoU of targets that are one network behind a defence, over a setting of it; dotted on the clean images.

    Args:
        runs: of one table.
        names: what each is called.
        title: what stands before the network in the titles.
        display: names of networks.
    """
    figures = []
    attacks = list(dict.fromkeys(names))
    found = families([*{row["target"]: row for run in runs for row in run.summary["targets"]}.values()])
    for source in dict.fromkeys(run.source for run in runs):
        scores = [({row["target"]: row for row in run.summary["targets"]}, name)
                  for run, name in zip(runs, names, strict=True) if run.source == source]  # fmt: skip
        every = {target: row for rows, _ in reversed(scores) for target, row in rows.items()}
        for family in found:
            lines = [("clean images", every, "clean_miou", {"color": LINES, "dash": "dot"})]
            for rows, name in scores:
                colour = COLOURS[attacks.index(name) % len(COLOURS)]
                lines.append((name, rows, "adversarial_miou", {"color": colour}))
            words = f"{title}{title and ', '}{family.title(display)}, source {display(source)}"
            figure = _figure(words, _escaped(family.setting), "mIoU (percent)").update_yaxes(rangemode="tozero")
            for label, rows, column, line in lines:
                points = [(x, _percent(rows[name][column])) for x, name in family.targets.items() if name in rows]
                if points:
                    x, y = zip(*points, strict=True)
                    figure.add_trace(go.Scatter(x=x, y=y, name=_escaped(label), mode="lines+markers", line=line))
            if figure.data:
                figures.append(_with_legend(figure))
    return figures


def class_bars(run: Run, target: str, display: Display = _PLAIN) -> go.Figure:
    """IoU of each class that has a label on clean and adversarial images, in percent.

    Without a bar, a class has an IoU of 0; those that have no labels have no place.
    """
    row = next(row for row in run.summary["targets"] if row["target"] == target)
    known = [one for one, value in row["clean_iou"].items() if value is not None]
    figure = _figure(f"IoU of each class: {display(target)}", "", "IoU (percent)")
    for name, colour in (("clean", CLEAN), ("adversarial", ADVERSARIAL)):
        values = [_percent(row[f"{name}_iou"][one]) for one in known]
        bars = go.Bar(x=[_escaped(display(one)) for one in known], y=values, name=name, marker={"color": colour})
        figure.add_trace(bars)
    return figure.update_xaxes(type="category").update_yaxes(range=[0, 100])


def flip_bars(run: Run, display: Display = _PLAIN) -> Iterator[go.Figure]:
    """Share of right pixels that the attack made wrong, by distance to the nearest edge and by size of the object."""
    for kind, (title, axis) in FLIPS.items():
        figure = _figure(title, axis, "percent of those right before")
        for number, row in enumerate(run.summary["targets"]):
            if kind not in row.get("flips", {}):
                continue
            counts = row["flips"][kind]
            both = [(counts["flipped"][place], right) for place, right in counts["right"].items()]
            shares = [100 * flipped / right if right else None for flipped, right in both]
            words = [f"{flipped} of {right} pixels" for flipped, right in both]
            name = display(row["target"]) + (" (white box)" if row["white_box"] else "")
            bars = go.Bar(x=list(counts["right"]), y=shares, hovertext=words, name=_escaped(name))
            cycle, place = divmod(number, len(COLOURS))
            pattern = {"shape": PATTERNS[cycle % len(PATTERNS)]}
            figure.add_trace(bars.update(marker={"color": COLOURS[place], "pattern": pattern}))
        if figure.data:
            yield _with_legend(figure.update_xaxes(type="category"))


def _against(
    runs: Sequence[Run], values: Sequence[float | None], title: str, setting: str, display: Display
) -> go.Figure | None:
    """Lines through the runs that differ in a setting (and the size of steps that goes with it) only.

    None where all have one value.
    """
    if len({value for value in values if value is not None}) < 2:
        return None
    figure = _figure("", title, "transfer mIoU (percent)")
    lines: dict[tuple[str, str, str], list[tuple[float, float | None]]] = {}
    for run, name, value in zip(runs, line_names(runs, (setting, "step_size"), display.attack), values, strict=True):
        if value is None:
            continue
        for row in run.summary["targets"]:
            if not row["white_box"]:
                points = lines.setdefault((name, run.source, row["target"]), [])
                points.append((value, _percent(row["adversarial_miou"])))
    _from_zero(figure, runs, display)
    attacks, targets = ([*dict.fromkeys(key[place] for key in lines)] for place in (0, 2))
    for (name, source, target), points in lines.items():
        colour = COLOURS[attacks.index(name) % len(COLOURS)]
        x, y = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                name=_escaped(f"{name}: {display(source)} to {display(target)}"),
                mode="lines+markers",
                line={"color": colour},
                marker={"symbol": SYMBOLS[targets.index(target) % len(SYMBOLS)], "color": colour, "size": 9},
            )
        )
    return _with_legend(figure)


def _from_zero(figure: go.Figure, runs: Sequence[Run], display: Display, every: bool = False) -> None:
    """Let both axes begin at 0, and draw the mIoU of each target on the clean images as a line across.

    Args:
        figure: of curves.
        runs: whose targets count.
        display: names of networks.
        every: those that are white boxes everywhere, too.
    """
    clean: dict[tuple[str, float], None] = {}
    for row in (row for run in runs for row in run.summary["targets"] if every or not row["white_box"]):
        if (value := _percent(row["clean_miou"])) is not None:
            clean[row["target"], value] = None
    values = [_percent(row["adversarial_miou"]) or 0 for run in runs for row in run.summary["targets"]]
    for number, (target, value) in enumerate(sorted(clean, key=lambda one: one[1])):  # neighbors on different sides
        words = {
            "text": _escaped(f"{display(target)}, clean"),
            "textposition": ("start", "end")[number % 2],
            "padding": 1,
        }
        label = {**words, "font": {"size": 10, "color": LINES}, "yanchor": "bottom"}
        line = {"color": LINES, "width": 1, "dash": "dot"}
        across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "layer": "below"}
        figure.add_shape(**across, line=line, label=label)
    top = max([*values, *(value for _, value in clean)], default=100)
    figure.update_yaxes(range=[0, 1.08 * top]).update_xaxes(rangemode="tozero")


def _figure(title: str, x: str, y: str, height: int = 380) -> go.Figure:
    return go.Figure(
        layout={
            "template": "none",
            "font": {"color": TEXT},
            "modebar": {"color": LINES, "activecolor": TEXT},
            "title": {"text": _escaped(title), "font": {"size": 15}, "x": 0, "xref": "paper"},
            "xaxis": {"title": {"text": x}, "automargin": True},
            "yaxis": {"title": {"text": y}, "automargin": True},
            "height": height,
            "margin": {"t": 50, "r": 20, "b": 60, "l": 60},
            "showlegend": True,
            "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        }
    )


def _with_legend(figure: go.Figure) -> go.Figure:
    """Long names stand one below the other under the chart, and take nothing from its height."""
    return figure.update_layout(height=320 + 20 * len(figure.data))


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 4)


def _escaped(name: str) -> str:
    """A name without markup: plotly interprets some HTML."""
    return html.escape(name, quote=False)

"""Charts of the page as plotly figures; all names in them are escaped."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from lightning_attack.report.facts import backward_passes, radius, steps
from lightning_attack.report.row_names import line_names
from lightning_attack.runs.folder import Run

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#bcbd22", "#444444")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "pentagon")
FLIPS = {
    "distance": ("Flipped pixels by distance to an edge", "pixels to the nearest edge of a label"),
    "size": ("Flipped pixels by size of object", "share of the image that the object has"),
}
CLEAN, ADVERSARIAL = "#9ab8d6", "#c0392b"


def heat_maps(runs: Sequence[Run], names: Sequence[str]) -> list[go.Figure]:
    """For each name of runs the adversarial mIoU of every target (columns) for every source (rows), in percent."""
    clean = [_percent(row["clean_miou"]) for run in runs for row in run.summary["targets"]]
    top = max((value for value in clean if value), default=100)
    figures = []
    for name in dict.fromkeys(names):
        chosen = [run for run, own in zip(runs, names, strict=True) if own == name]
        targets = list(dict.fromkeys(target for run in chosen for target in run.targets))
        rows = [{row["target"]: row for row in run.summary["targets"]} for run in chosen]
        cells = [[_percent(row.get(target, {}).get("adversarial_miou")) for target in targets] for row in rows]
        words = [
            ["" if value is None else f"{value:.1f}" + (" (white box)" if row[target]["white_box"] else "")
             for target, value in zip(targets, values, strict=True)]
            for row, values in zip(rows, cells, strict=True)
        ]  # fmt: skip
        heat = go.Heatmap(
            x=[_escaped(target) for target in targets],
            y=[_escaped(run.source) for run in chosen],
            z=cells,
            text=words,
            texttemplate="%{text}",
            hovertemplate="target %{x}<br>source %{y}<br>mIoU %{text}<extra></extra>",
            colorscale="Viridis",
            zmin=0,
            zmax=top,
            colorbar={"thickness": 12},
        )
        figure = _figure(name, "", "", height=180 + 50 * len(chosen))
        figure.add_trace(heat).update_xaxes(type="category").update_yaxes(type="category", autorange="reversed")
        figures.append(figure)
    return figures


def step_curves(runs: Sequence[Run], names: Sequence[str]) -> list[go.Figure]:
    """For each source the mIoU of its targets over the steps, of runs that kept it; white boxes are dashed."""
    figures = {}
    for run, name in zip(runs, names, strict=True):
        curve = run.summary.get("step_curve")
        if not curve:
            continue
        if run.source not in figures:
            figures[run.source] = _figure(f"source {run.source}", "steps", "mIoU (percent)")
        colour = COLOURS[list(dict.fromkeys(names)).index(name) % len(COLOURS)]
        for number, (target, values) in enumerate(curve["targets"].items()):
            dash = "dash" if run.targets.get(target) else "solid"
            marks = {"symbol": SYMBOLS[number % len(SYMBOLS)], "color": colour}
            figures[run.source].add_trace(
                go.Scatter(
                    x=curve["steps"],
                    y=[_percent(value) for value in values],
                    name=_escaped(f"{name}: {target}"),
                    mode="lines+markers",
                    line={"color": colour, "dash": dash},
                    marker=marks,
                )
            )
    return [_with_legend(figure) for figure in figures.values()]


def transfer_curves(runs: Sequence[Run]) -> list[go.Figure]:
    """Transfer mIoU (of targets that are no white box) against radius, steps and backward passes, where they differ."""
    figures = []
    for norm in dict.fromkeys(found[0] for run in runs if (found := radius(run))):
        scale, unit = (255, " / 255") if norm == "Linf" else (1, "")
        values = [scale * found[1] if (found := radius(run)) and found[0] == norm else None for run in runs]
        figures.append(_against(runs, values, f"eps ({norm}{unit})", "eps"))
    figures.append(_against(runs, list(map(steps, runs)), "steps", "steps"))
    figures.append(_against(runs, list(map(backward_passes, runs)), "backward passes per image", "steps"))
    return [figure for figure in figures if figure]


def class_bars(run: Run, target: str) -> go.Figure:
    """IoU of each class on clean and adversarial images, in percent; none for classes without a label."""
    row = next(row for row in run.summary["targets"] if row["target"] == target)
    figure = _figure(f"IoU of each class: {target}", "", "IoU (percent)")
    for name, colour in (("clean", CLEAN), ("adversarial", ADVERSARIAL)):
        iou = row[f"{name}_iou"]
        values = [_percent(value) for value in iou.values()]
        figure.add_trace(go.Bar(x=list(map(_escaped, iou)), y=values, name=name, marker={"color": colour}))
    return figure.update_xaxes(type="category")


def flip_bars(run: Run) -> Iterator[go.Figure]:
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
            name = row["target"] + (" (white box)" if row["white_box"] else "")
            bars = go.Bar(x=list(counts["right"]), y=shares, hovertext=words, name=_escaped(name))
            figure.add_trace(bars.update(marker={"color": COLOURS[number % len(COLOURS)]}))
        if figure.data:
            yield _with_legend(figure.update_xaxes(type="category"))


def _against(runs: Sequence[Run], values: Sequence[float | None], title: str, setting: str) -> go.Figure | None:
    """Lines through the runs that differ in a setting (and the size of steps that goes with it) only.

    None where all have one value.
    """
    if len({value for value in values if value is not None}) < 2:
        return None
    figure = _figure("", title, "transfer mIoU (percent)")
    lines: dict[tuple[str, str, str], list[tuple[float, float | None]]] = {}
    for run, name, value in zip(runs, line_names(runs, (setting, "step_size")), values, strict=True):
        if value is None:
            continue
        for row in run.summary["targets"]:
            if not row["white_box"]:
                points = lines.setdefault((name, run.source, row["target"]), [])
                points.append((value, _percent(row["adversarial_miou"])))
    attacks, targets = ([*dict.fromkeys(key[place] for key in lines)] for place in (0, 2))
    for (name, source, target), points in lines.items():
        colour = COLOURS[attacks.index(name) % len(COLOURS)]
        x, y = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                name=_escaped(f"{name}: {source} to {target}"),
                mode="lines+markers",
                line={"color": colour},
                marker={"symbol": SYMBOLS[targets.index(target) % len(SYMBOLS)], "color": colour, "size": 9},
            )
        )
    return _with_legend(figure)


def _figure(title: str, x: str, y: str, height: int = 380) -> go.Figure:
    return go.Figure(
        layout={
            "template": "none",
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

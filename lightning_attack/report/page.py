"""`write_page`: an HTML file that compares runs, and that needs no other file and no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from lightning_attack.common.atomic import atomic_write
from lightning_attack.common.counted import counted
from lightning_attack.report import charts, page_table
from lightning_attack.report.facts import gaps, provenance
from lightning_attack.report.figures.display import Display
from lightning_attack.report.groups import Group, group_runs
from lightning_attack.report.intervals import DRAWS
from lightning_attack.report.overview import overviews
from lightning_attack.report.pictures import gallery
from lightning_attack.report.row_names import row_names, short_folders
from lightning_attack.report.sheet import Sheet, compute
from lightning_attack.report.templates import HERE, TEMPLATES, policy, style
from lightning_attack.runs.commands import read_commands
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run
from lightning_attack.runs.names import COMMAND

IMAGES_OF_RUN, IMAGES = 8, 160
"""Largest number of images of a run in the gallery, and roughly of the whole page; every run has at least one."""

ROWS = 100
"""Rows of the table that are shown at a time."""
RUNS = 100
"""Runs that have more than their rows in the table."""
PICTURES = 6_000_000
"""Characters of pictures on the page; runs after those that take them have none."""


def write_page(
    runs: Sequence[Run],
    path: Path,
    draws: int = DRAWS,
    sheets: Sequence[Sheet] | None = None,
    display: Display | None = None,
) -> None:
    """Write a page with tables, charts, pictures and commands of runs.

    The file opens in a browser without any network: plotly, styles and pictures are inside, and its policy forbids
    everything else. A script that came in with a name would not run: names are escaped, and the policy knows the
    page's own scripts by their hashes. Nothing is averaged over runs, images or networks; where the runs do not
    compare, the page begins with saying so.

    Args:
        runs: one or more, in the order that they shall have.
        path: of the file; its folder is made.
        draws: of the bootstrap.
        sheets: the tables of these runs; None = they are worked out.
        display: names of attacks, networks and classes; None = what the runs say.

    Raises:
        RunsError: no runs, or panels of a run cannot be used.
        OSError: the file cannot be written.
    """
    if not runs:
        raise RunsError("there are no runs to compare; give folders of finished runs")
    display = display or Display({})
    names, folders = row_names(runs, called=display.attack), short_folders(runs)
    notes = [*gaps(runs, folders)]
    every, every_folder = runs, folders
    if len(runs) > RUNS:
        notes.append(f"Charts, pictures and commands are of the first {RUNS} of the {len(runs)} runs; name fewer runs "
                     "to see those of others. The table has all.")  # fmt: skip
        runs, folders, names = runs[:RUNS], folders[:RUNS], names[:RUNS]
    script, plotly = (HERE / "page.js").read_text("utf-8"), get_plotlyjs()
    groups = group_runs(runs)[0]
    named = {run.folder: name for run, name in zip(runs, names, strict=True)}
    if sheets is None:
        sheets = [compute(group, draws=draws) for group in group_runs(every)[0]]
    titles = _titles(len(groups), len(sheets))
    curves = []
    for title, group in zip(titles, groups, strict=True):
        curves += charts.step_curves(group.runs, [named[run.folder] for run in group.runs], title, display)
    for title, group in zip(titles, groups, strict=True):
        curves += charts.transfer_curves(group.runs, title, display)
    for title, group in zip(titles, groups, strict=True):
        curves += charts.strength_curves(group.runs, [named[run.folder] for run in group.runs], title, display)
    figures = {"heat": _as_json(_heat_maps(groups, titles, named, display)), "curves": _as_json(curves)}
    tables = overviews(sheets, display, {run.folder: one for run, one in zip(every, every_folder, strict=True)})
    # The template escapes all names. What it marks as safe is of this package, or cannot end the element it is in.
    page = TEMPLATES.get_template("page.html").render(
        policy=policy(plotly, script),
        style=style(),
        summary=_summary(every),
        provenance=[*provenance(every)],
        overviews=tables,
        gaps=notes,
        choices=page_table.choices(every),
        headings=page_table.HEADINGS,
        numbers=page_table.NUMBERS,
        page_rows=ROWS,
        rows=page_table.table_rows(every, every_folder, draws),
        curves=_about_curves(runs, len(curves)),
        commands=_commands(runs, names, folders, display),
        command_file=COMMAND,
        data=_inside_script({"charts": figures, "runs": _runs(runs, names, display)}),
        plotly=plotly,
        script=script,
    )
    with atomic_write(path) as unfinished:
        unfinished.write_text(page, "utf-8", "backslashreplace", "\n")


def _summary(runs: Sequence[Run]) -> str:
    attacks, sources = ({getattr(run, what) for run in runs} for what in ("attack", "source"))
    targets = {target for run in runs for target in run.targets}
    counts = ((len(runs), "run"), (len(attacks), "attack"), (len(sources), "source"), (len(targets), "target"))
    return ", ".join(counted(count, what) for count, what in counts) + "."


def _heat_maps(
    groups: Sequence[Group], titles: Sequence[str], names: Mapping[Path, str], display: Display
) -> Iterator[go.Figure]:
    """One for the runs of each group."""
    for title, group in zip(titles, groups, strict=True):
        yield charts.heat_map(group.runs, [names[run.folder] for run in group.runs], title, display)


def _titles(groups: int, tables: int) -> list[str]:
    """Of the charts of each group, where there are several: its table, if each has one."""
    word = "Table" if groups == tables else "Group"
    return [f"{word} {number}" if groups > 1 else "" for number in range(1, groups + 1)]


def _about_curves(runs: Sequence[Run], count: int) -> str:
    kept = sum("step_curve" in run.summary for run in runs)
    sentences = [f"{kept} of {len(runs)} runs kept the mIoU of their steps."]
    if count:
        sentences.append(
            "A curve is one target of one source, not a mean; white boxes are dashed or left out. Dotted: clean images."
        )
    sentences.append("Radius, steps, passes and the strength of a defence have a chart each where they differ.")
    return " ".join(sentences)


def _runs(runs: Sequence[Run], names: Sequence[str], display: Display) -> list[dict[str, Any]]:
    """The data that the page shows for the chosen run."""
    most, left = max(1, min(IMAGES_OF_RUN, IMAGES // len(runs))), PICTURES
    found = []
    for name, run in zip(names, runs, strict=True):
        pictures = []
        for views in gallery(run, most) if left > 0 else ():
            pictures.append({"name": views.name, "pictures": [*views.pictures.items()]})
            left -= sum(map(len, views.pictures.values()))
            if left <= 0:
                break
        found.append(
            {
                "title": f"{name} on {display(run.source)}",
                "targets": [
                    display(target) + (" (white box)" if white else "") for target, white in run.targets.items()
                ],
                "classes": _as_json(charts.class_bars(run, target, display) for target in run.targets),
                "flips": _as_json(charts.flip_bars(run, display)),
                "gallery": pictures,
            }
        )
    return found


def _commands(
    runs: Sequence[Run], names: Sequence[str], folders: Sequence[str], display: Display
) -> list[tuple[str, list[str]]]:
    """For each run a title and its commands without repetitions; an empty list where the run did not keep them."""
    return [
        (f"{name} on {display(run.source)} ({folder})", [*dict.fromkeys(read_commands(run.folder))])
        for run, name, folder in zip(runs, names, folders, strict=True)
    ]


def _as_json(figures: Iterable[go.Figure]) -> list[dict[str, Any]]:
    return [json.loads(figure.to_json()) for figure in figures]


def _inside_script(content: Any) -> str:
    """JSON that cannot end the element that it is in."""
    return json.dumps(content, ensure_ascii=True).replace("<", "\\u003c")

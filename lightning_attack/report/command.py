"""The command `report`: compare finished runs, in tables on the console and in files."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from lightning_attack.common.atomic import atomic_write, check_folder
from lightning_attack.common.counted import counted
from lightning_attack.common.table_width import table_width
from lightning_attack.report.checks import check_draws, check_outside_runs
from lightning_attack.report.collect import collect
from lightning_attack.report.facts import attack_facts, doubts, provenance
from lightning_attack.report.figures.display import Display
from lightning_attack.report.groups import group_runs
from lightning_attack.report.intervals import DRAWS
from lightning_attack.report.latex import bibtex, latex
from lightning_attack.report.page import write_page
from lightning_attack.report.row_names import short_folders
from lightning_attack.report.sheet import check_baseline, compute
from lightning_attack.report.tables import (
    LEGEND,
    console,
    console_differences,
    differences_csv,
    markdown,
    table_csv,
)
from lightning_attack.runs.errors import RunsError

OUTPUT = "report"


def report(
    runs: list[str],
    output: str = OUTPUT,
    baseline: str | None = None,
    draws: int = DRAWS,
    common: bool = False,
    partial: bool = False,
    mean: bool = False,
    names: Sequence[str] = (),
    intervals: bool = False,
) -> None:
    """Put runs side by side: print tables, and write `report.csv`, `.md`, `.tex`, `.bib`, `.html`, `differences.csv`.

    Args:
        runs: Folders of runs, or folders above them.
        output: Folder of the report; not inside a run.
        baseline: Attack, label or folder that the others are compared with; nothing = pgd, or the plainest there is.
        draws: How often images are drawn for the intervals.
        common: Compare runs of different images on those that all have.
        partial: Report runs that were stopped too.
        mean: Make one row of runs that differ in nothing but their seed: mean and standard deviation.
        names: `NAME=TEXT`: what attacks, networks and data sets are called in `report.tex` and on the page.
        intervals: Give the figures in `report.tex` their intervals.
    """
    folder = Path(output)
    _check(folder, draws)
    found, notes = collect(runs, partial)
    display = Display.of(names, found)
    groups, reasons = group_runs(found, common)
    notes += [*reasons, *doubts(found, short_folders(found))]
    if baseline is not None:
        check_baseline(groups, baseline, mean)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("intervals", total=len(found))
        sheets = [compute(group, baseline, draws, mean, lambda: bar.advance(task)) for group in groups]
    titles = [_title(number, len(sheets), sheet.images) for number, sheet in enumerate(sheets, 1)]
    # All is worked out before anything is written.
    texts = {
        "report.csv": table_csv(sheets),
        "differences.csv": differences_csv(sheets),
        "report.md": markdown(sheets, titles, notes, [*attack_facts(found), *provenance(found)]),
        "report.tex": latex(sheets, display, intervals),
        "report.bib": bibtex(sheets),
    }
    write_page(found, folder / "report.html", draws, sheets, display)  # first, for it reads pictures, which may be torn
    for name, text in texts.items():
        with atomic_write(folder / name) as path:
            path.write_text(text, "utf-8", "backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # folders may have bytes that are no UTF-8
    screen = Console(width=table_width())
    for sheet, title in zip(sheets, titles, strict=True):
        screen.print(console(sheet, title))
        differences = console_differences(sheet)
        if differences:
            screen.print(differences)
    screen.print(LEGEND, style="dim", markup=False)
    for note in notes:
        screen.print(f"Note: {note}", markup=False, soft_wrap=True)
    screen.print(f"Report: {folder}", markup=False, soft_wrap=True)


def _check(folder: Path, draws: int) -> None:
    check_draws(draws)
    if folder.exists() and not folder.is_dir():
        raise RunsError(f"--output={folder} is a file; give a folder")
    check_folder(folder)
    check_outside_runs(folder, folder)


def _title(number: int, tables: int, images: int) -> str:
    about = counted(images, "image")
    return f"Table {number}, {about}" if tables > 1 else about.capitalize()

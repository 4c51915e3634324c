"""The first tables of the page: attacks in rows by source and budget, targets in columns, as in `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_attack.common.counted import counted
from lightning_attack.report.facts import data_text
from lightning_attack.report.figures.display import Display
from lightning_attack.report.paper_names import paper_names
from lightning_attack.report.sheet import Score, Sheet
from lightning_attack.report.tables import figure, percent, span


@dataclass(frozen=True)
class Cell:
    """What a cell shows: the adversarial mIoU in percent, its interval, and `kind`: `best`, `white-box` or empty."""

    value: str
    interval: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """A row: the attack, its run and its cells."""

    attack: str
    run: str
    cells: list[Cell]


@dataclass(frozen=True)
class Overview:
    """A table: title, names of columns, mIoU on the clean images, rows by source and budget, notes."""

    title: str
    targets: list[str]
    clean: list[str]
    sections: list[tuple[str, list[Line]]]
    notes: tuple[str, ...]


def overviews(sheets: Sequence[Sheet], display: Display, places: Mapping[Path, str]) -> list[Overview]:
    """The tables.

    Args:
        sheets: what they show.
        display: names of attacks and networks.
        places: what the folder of each run is called.
    """
    return [
        _overview(sheet, f"Table {number}: " if len(sheets) > 1 else "", display, places)
        for number, sheet in enumerate(sheets, 1)
    ]


def _overview(sheet: Sheet, before: str, display: Display, places: Mapping[Path, str]) -> Overview:
    runs = [run for section in sheet.sections for row in section.rows for run in row.entry.runs]
    data = dict.fromkeys(text for run in runs if (text := data_text(run, display)))
    sections = []
    for section, names in zip(sheet.sections, paper_names(sheet.sections, display.attack), strict=True):
        lines = [
            Line(
                str(name),
                ", ".join(places.get(run.folder, str(run.folder)) for run in row.entry.runs),
                [_cell(row.cells.get(target)) for target in sheet.targets],
            )
            for row, name in zip(section.rows, names, strict=True)
        ]
        sections.append((f"source {display(section.source)}, {section.budget}", lines))
    return Overview(
        f"{before}{', '.join([*data, counted(sheet.images, 'image')])}",
        [display(target) for target in sheet.targets],
        [percent(sheet.clean[target]) for target in sheet.targets],
        sections,
        sheet.notes,
    )


def _cell(cell: Score | None) -> Cell:
    if cell is None:
        return Cell("–")
    kind = "white-box" if cell.white_box else "best" if cell.best else ""
    return Cell(figure(cell), span(cell.adversarial), kind)

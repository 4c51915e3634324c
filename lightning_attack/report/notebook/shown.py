"""`show`: runs as a notebook shows them, tables and pictures."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lightning_attack.common.counted import counted
from lightning_attack.report.collect import collect
from lightning_attack.report.groups import group_runs
from lightning_attack.report.intervals import DRAWS
from lightning_attack.report.pictures import Views, gallery
from lightning_attack.report.sheet import Sheet, compute
from lightning_attack.report.tables import LEGEND, console

_WIDTH = 160


class ShownRuns:
    """Tables of some runs, and pictures of one; what `show` returns. A notebook shows it, `print` writes its tables.

    Attributes:
        sheets: the tables.
        pictures: images with their pictures.
        notes: what there is to say about runs that were left out.
    """

    def __init__(self, sheets: Sequence[Sheet], pictures: Sequence[Views], notes: Sequence[str]) -> None:
        self.sheets, self.pictures, self.notes = list(sheets), list(pictures), list(notes)

    def __repr__(self) -> str:
        screen = Console(file=io.StringIO(), width=_WIDTH, record=True)
        self._print(screen)
        return screen.export_text().rstrip()

    def _repr_html_(self) -> str:
        screen = Console(file=io.StringIO(), width=_WIDTH, record=True)
        self._print(screen)
        tables = screen.export_html(inline_styles=True, code_format='<pre style="line-height: 1.2">{code}</pre>')
        return tables + "".join(map(_row, self.pictures))

    def _print(self, screen: Console) -> None:
        for sheet in self.sheets:
            screen.print(console(sheet, counted(sheet.images, "image").capitalize()))
        screen.print(LEGEND, style="dim", markup=False)
        for note in self.notes:
            screen.print(f"Note: {note}", markup=False)


def show(*runs: str | Path, images: int = 2, draws: int = DRAWS) -> ShownRuns:
    """Show finished runs in a notebook: their tables, side by side where they can be compared, and pictures.

    Args:
        runs: folders of runs, or folders above them, such as `trainer.log_dir`.
        images: of how many images of the first run pictures are shown, if it has panels (`ImageLogger`).
        draws: how often images are drawn for the intervals.

    Raises:
        RunsError: there is no run, or it cannot be read.
    """
    found, notes = collect(runs, partial=True)
    groups, reasons = group_runs(found, common=False)
    sheets = [compute(group, draws=draws) for group in groups]
    return ShownRuns(sheets, list(gallery(found[0], images)), [*notes, *reasons])


def _row(views: Views) -> str:
    """The pictures of an image beside each other, each below its title."""
    cell = (
        '<figure style="margin: 4px; width: 180px; display: inline-block; vertical-align: top">'
        '<figcaption style="font-size: 11px; min-height: 28px">{title}</figcaption>'
        '<img src="{picture}" alt="{title}" style="width: 100%"></figure>'
    )
    pictures = "".join(
        cell.format(title=html.escape(title), picture=picture) for title, picture in views.pictures.items()
    )
    return f"<div><strong>{html.escape(views.name)}</strong><br>{pictures}</div>"

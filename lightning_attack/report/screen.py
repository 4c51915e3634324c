"""The tables of finished runs on the console, without a report in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lightning_attack.common.counted import counted
from lightning_attack.common.table_width import table_width
from lightning_attack.report.collect import collect
from lightning_attack.report.groups import group_runs
from lightning_attack.report.sheet import compute
from lightning_attack.report.tables import console
from lightning_attack.runs.errors import RunsError


def print_tables(folders: Sequence[Path]) -> None:
    """Print the tables of the runs in some folders; runs that are not finished count with what they have."""
    screen = Console(width=table_width())
    try:
        found, _ = collect([str(folder) for folder in folders], partial=True)
        groups, _ = group_runs(found, common=False)
    except RunsError as error:  # the runs themselves are there
        screen.print(f"No table: {error}", markup=False, soft_wrap=True)
        return
    for sheet in map(compute, groups):
        screen.print(console(sheet, counted(sheet.images, "image").capitalize()))

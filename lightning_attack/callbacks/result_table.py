"""`show_result`: the table of a run on the console, and what else there is to say about its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightning_attack.common.counted import counted
from lightning_attack.common.table_width import table_width
from lightning_attack.runs.summary import PREDICTED
from lightning_attack.runs.summary_files import missing_words


def show_result(
    rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], folder: Path, how_to_go_on: str = ""
) -> None:
    """Print the result of a run.

    Args:
        rows: as in `transfer.csv`.
        summary: the content of `transfer.json`.
        folder: where these are.
        how_to_go_on: what the user can do about missing images.
    """
    console = Console(width=table_width())
    console.print(_table(rows, summary))
    if summary["labels"] == PREDICTED:
        console.print(f"Labels: the {PREDICTED}, because the data has no masks; its clean mIoU is 100 by definition")
    for doubt in summary["warnings"]:
        console.print(f"Warning: {doubt['message']}", soft_wrap=True, markup=False, style="yellow")
    if "minimal_norm" in summary:
        found = summary["minimal_norm"]
        norm = "none" if found["median_linf"] is None else f"{found['median_linf']:.3g}/255"
        console.print(f"Solved: {found['solved']:.1%} of the images; median L-inf norm: {norm}")
    for image in summary.get("skipped", ()):
        console.print(f"Left out: {image['name']}: {image['error']}", soft_wrap=True, markup=False)
    for image in summary.get("failed", ()):
        console.print(f"Not scored: {image['name']}: {image['error']}", soft_wrap=True, markup=False)
    if "partial" in summary:
        rest = f"; {how_to_go_on}" if how_to_go_on else ""
        console.print(f"Partial: {missing_words(summary)}{rest}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"Results: {folder}", soft_wrap=True, markup=False)


def _table(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Table:
    first = rows[0]
    images = counted(first["images"], "image")
    title = f"{first['attack']} on {first['source']}, {images}: mIoU in percent (lower = stronger)"
    if summary["labels"] == PREDICTED:
        title += f"; labels: {PREDICTED}"
    table = Table("target", title=escape(title))  # names may have brackets
    columns = {"clean": "clean_miou", "adversarial": "adversarial_miou", "drop": "drop"}
    more = ("abstained", "success", "inside_adversarial_miou", "outside_adversarial_miou")
    columns |= {name: name for name in more if name in first}
    for heading in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row[column] for column in columns.values())
        cells = ["-" if number is None else f"{100 * number:.2f}" for number in numbers]
        table.add_row(escape(row["target"]) + (" (white box)" if row["white_box"] else ""), *cells)
    return table

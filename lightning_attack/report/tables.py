"""Sheets as text: on the console, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.table import Column, Table

from lightning_attack.common.markdown import escape, table_row
from lightning_attack.report.differences import ends, sentences
from lightning_attack.report.intervals import Interval
from lightning_attack.report.sheet import Row, Score, Section, Sheet

COLUMNS = (
    "table", "run", "attack", "label", "source", "budget", "target", "white_box", "images",
    "clean_miou", "clean_miou_low", "clean_miou_high", "adversarial_miou", "adversarial_miou_low",
    "adversarial_miou_high", "drop", "drop_low", "drop_high", "best", "seed", "spread", "backward_passes", "linf",
    "partial",
)  # fmt: skip
DIFFERENCES = (
    "table", "source", "budget", "target", "white_box", "label", "against", "difference", "difference_low",
    "difference_high", "real", "images",
)  # fmt: skip
LEGEND = (
    "mIoU in percent on the adversarial images, lower = stronger; in brackets 95 % intervals over images. White boxes "
    "(the attacked network itself) do not compete. Bold: the strongest attack of its section on this target, if it is "
    "really lower than the second, i.e. the interval of their paired difference leaves out 0. After ±: standard "
    "deviation over seeds."
)


def percent(value: float) -> str:
    """A share in percent; `-` where there is none.

    Example:
        >>> percent(0.4229), percent(float("nan"))
        ('42.29', '-')
    """
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def figure(cell: Score) -> str:
    """The adversarial mIoU in percent, over seeds with its standard deviation."""
    return percent(cell.adversarial.value) + ("" if cell.spread is None else f"±{100 * cell.spread:.2f}")


def span(interval: Interval, signed: bool = False) -> str:
    """The ends of an interval in percent; nothing where it has none.

    Example:
        >>> span(Interval(0.5, 0.4, 0.6, 48)), span(Interval(0.5, 0.4, 0.6, 48), signed=True)
        ('40.0..60.0', '+40.0..+60.0')
    """
    if math.isnan(interval.low):
        return ""
    return ends(interval, "+") if signed else f"{100 * interval.low:.1f}..{100 * interval.high:.1f}"


def console(sheet: Sheet, title: str) -> Table:
    """The figures as a table for `rich`: white boxes are dimmed, significantly strongest attacks bold."""
    table = Table(*_columns(sheet), title=title, caption=_literal("\n".join(sheet.notes)) or None)
    table.add_row("clean", *(percent(sheet.clean[target]) for target in sheet.targets), end_section=True)
    for section in sheet.sections:
        table.add_row(f"[italic]{_literal(section.title)}[/]")
        for row in section.rows:
            cells = [_console_cell(row.cells.get(target)) for target in sheet.targets]
            table.add_row(f"  {_literal(row.label)}", *cells, end_section=row is section.rows[-1])
    return table


def console_differences(sheet: Sheet) -> Table | None:
    """The differences to the baselines, dimmed where they are not significant; None if there are none."""
    table = Table(*_columns(sheet), title="Difference to the baseline in points of mIoU (below 0 = stronger)")
    for section in sheet.sections:
        rows = [row for row in section.rows if row.against]
        if rows:
            against = ", ".join(dict.fromkeys(str(row.against) for row in rows))
            table.add_row(f"[italic]{_literal(section.title)}, against {_literal(against)}[/]")
        for row in rows:
            cells = []
            for target in sheet.targets:
                difference = row.cells[target].difference if target in row.cells else None
                text = f"{100 * difference.value:+.2f} ({span(difference, True) or '-'})" if difference else "-"
                cells.append(text if difference and difference.significant else f"[dim]{text}[/]")
            table.add_row(f"  {_literal(row.label)}", *cells, end_section=row is rows[-1])
    return table if table.row_count else None


def markdown(
    sheets: Sequence[Sheet], titles: Sequence[str], notes: Iterable[str], facts: Iterable[tuple[str, str]] = ()
) -> str:
    """What was run (`facts`, by name), all tables with their notes, and the differences as sentences."""
    blocks = ["# Transfer of adversarial examples", _list(f"{name}: {text}" for name, text in facts)]
    blocks += [f"{LEGEND} White boxes are in italics.", _list(notes)]
    for sheet, title in zip(sheets, titles, strict=True):
        blocks.append(f"## {title}")
        lines = [["attack", *map(escape, sheet.targets)], ["---"] * (1 + len(sheet.targets))]
        lines.append(["clean", *(percent(sheet.clean[target]) for target in sheet.targets)])
        for section in sheet.sections:
            lines.append([f"*{escape(section.title)}*", *[""] * len(sheet.targets)])
            lines += [[escape(row.label), *(_markdown_cell(row.cells.get(target)) for target in sheet.targets)]
                      for row in section.rows]  # fmt: skip
        blocks.append("\n".join(map(table_row, lines)))
        blocks.append(_list(sheet.notes))
        said = list(sentences(sheet))
        if said:
            blocks += ["### Differences", _list(said)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def table_csv(sheets: Sequence[Sheet]) -> str:
    """One row for each run and target, see `COLUMNS`; shares in [0, 1]."""
    rows = []
    for number, section, row in _rows(sheets):
        runs = row.entry.runs
        for cell in row.cells.values():
            values = {
                "table": number, "run": ";".join(str(run.folder) for run in runs), "attack": runs[0].attack,
                "label": row.label, "source": runs[0].source, "budget": section.budget, "target": cell.target,
                "white_box": cell.white_box, "images": cell.adversarial.images, "best": cell.best,
                "seed": ";".join(str(run.summary["settings"]["seed"]) for run in runs), "spread": cell.spread,
                "backward_passes": runs[0].summary["passes_per_image"].get("backward"),
                "linf": runs[0].summary["perturbation"].get("linf"), "partial": any(run.partial for run in runs),
            }  # fmt: skip
            rows.append(values | _ends("clean_miou", cell.clean) | _ends("adversarial_miou", cell.adversarial)
                        | _ends("drop", cell.drop))  # fmt: skip
    return _csv(COLUMNS, rows)


def differences_csv(sheets: Sequence[Sheet]) -> str:
    """One row for each run and target that has a baseline, see `DIFFERENCES`; shares in [-1, 1]."""
    rows = [
        {
            "table": number, "source": section.source, "budget": section.budget, "target": cell.target,
            "white_box": cell.white_box, "label": row.label, "against": row.against,
            "real": cell.difference.significant, "images": cell.difference.images,
        } | _ends("difference", cell.difference)
        for number, section, row in _rows(sheets) for cell in row.cells.values() if cell.difference
    ]  # fmt: skip
    return _csv(DIFFERENCES, rows)


def _rows(sheets: Sequence[Sheet]) -> Iterator[tuple[int, Section, Row]]:
    for number, sheet in enumerate(sheets, 1):
        for section in sheet.sections:
            for row in section.rows:
                yield number, section, row


def _csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _ends(name: str, interval: Interval) -> dict[str, float | str]:
    """Value and ends as columns; empty where there is no number."""
    values = {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: "" if math.isnan(value) else value for key, value in values.items()}


def _columns(sheet: Sheet) -> list[Column]:
    """Where the console is narrow, long names go on in the next line: nothing is cut."""
    targets = (Column(_literal(target), justify="right", overflow="fold") for target in sheet.targets)
    return [Column("attack", overflow="fold"), *targets]


def _console_cell(cell: Score | None) -> str:
    if cell is None:
        return "-"
    text, between = figure(cell), span(cell.adversarial) or "-"
    if cell.white_box:
        return f"[dim]{text} ({between})[/]"
    return f"{f'[bold]{text}[/]' if cell.best else text} [dim]({between})[/]"


def _markdown_cell(cell: Score | None) -> str:
    if cell is None:
        return "-"
    text = figure(cell)
    mark = "**" if cell.best else "*" if cell.white_box else ""
    return f"{mark}{text}{mark} ({span(cell.adversarial) or '-'})"


def _literal(text: str) -> str:
    """Text without markup of `rich`."""
    return text.replace("[", r"\[")


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)

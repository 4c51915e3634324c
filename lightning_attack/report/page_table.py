"""The table of the page: a row for each run and target, as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lightning_attack.report.facts import backward_passes, radius, radius_text, steps
from lightning_attack.report.intervals import miou_interval
from lightning_attack.report.row_names import places
from lightning_attack.runs.folder import Run, common_images

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A cell: what it shows, and the number that it is sorted by; texts are sorted as such."""

    text: str
    value: float | None = None


NUMBERS = (
    "clean mIoU", "adversarial mIoU", "95 % interval", "drop", "clean accuracy", "adversarial accuracy", "eps", "steps",
    "backward passes", "images",
)  # fmt: skip
HEADINGS = ("attack", "source", "target", "white box", *NUMBERS, "run")
FILTERS = ("attack", "source", "target")


def header() -> str:
    """The row of headings; each is a button that sorts."""
    cells = (
        f'<th scope="col" class="{"number" if name in NUMBERS else "text"}" aria-sort="none">'
        f'<button type="button">{escape(name)}</button></th>'
        for name in HEADINGS
    )
    return f"<tr>{''.join(cells)}</tr>"


def filters(runs: Sequence[Run]) -> str:
    """A choice for each of `FILTERS`."""
    known = {
        "attack": {run.attack for run in runs},
        "source": {run.source for run in runs},
        "target": {target for run in runs for target in run.targets},
    }
    choices = []
    for name in FILTERS:
        options = "".join(f"<option>{escape(one)}</option>" for one in sorted(known[name]))
        choices.append(
            f'<label>{name} <select class="filter" data-column="{HEADINGS.index(name)}">'
            f'<option value="">all</option>{options}</select></label>'
        )
    return "\n".join(choices)


def body(runs: Sequence[Run], draws: int) -> str:
    """The rows, in the order of the runs and of their targets."""
    lines = []
    for run, place in zip(runs, places(runs), strict=True):
        for row in run.report["targets"]:
            cells = "".join(map(_html, _cells(run, row, place, draws)))
            kind = "white-box" if row["white_box"] else "transfer"
            lines.append(f'<tr class="{kind}">{cells}</tr>')
    return "\n".join(lines)


def _cells(run: Run, row: dict, place: str, draws: int) -> list[Cell]:
    shares = ("clean_miou", "adversarial_miou", "drop", "clean_accuracy", "adversarial_accuracy")
    scores = [Cell(MISSING if row[key] is None else f"{100 * row[key]:.2f}", row[key]) for key in shares]
    length = radius(run)
    passes, count = backward_passes(run), row["images"]
    missing = run.report.get("missing")
    return [
        Cell(row["attack"]),
        Cell(row["source"]),
        Cell(row["target"]),
        Cell("yes" if row["white_box"] else "no"),
        *scores[:2],
        _interval(run, row["target"], draws),
        *scores[2:],
        Cell(radius_text(run) or MISSING, length and length[1]),
        Cell(str(steps(run) or MISSING), steps(run)),
        Cell(MISSING if passes is None else f"{passes:.5g}", passes),
        Cell(f"{count} ({missing} missing)" if missing else str(count), count),
        Cell(place),
    ]


def _interval(run: Run, target: str, draws: int) -> Cell:
    """Of the adversarial mIoU over the images on which the target was scored, sorted by its width."""
    images = common_images([run], run.scored(target))
    if not images:
        return Cell(MISSING)
    found = miou_interval(run.confusions(target, images)[:, 1], draws)
    if math.isnan(found.high - found.low):
        return Cell(MISSING)
    return Cell(f"{100 * found.low:.1f}..{100 * found.high:.1f}", found.high - found.low)


def _html(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    return f"<td{value}>{escape(cell.text)}</td>"

"""What the cells of a study cost, and how long they will take, for `study --dry-run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

from rich.console import Console
from rich.table import Column, Table

from lightning_attack.callbacks.timing import Timed
from lightning_attack.common.counted import counted
from lightning_attack.common.durations import duration
from lightning_attack.common.table_width import table_width

_NOTE = (
    "Times are estimates. Of each source one batch of the cheapest attack was timed, after another to warm up; other "
    "attacks are taken to need as much time for each backward pass (those marked ? were timed themselves). Each cell "
    "takes a few seconds more to start. Nothing was written."
)


class Cost(NamedTuple):
    """What is to be done in a cell: backward passes per photo, None if they are not known, and photos that are left."""

    passes: float | None
    photos: int

    @property
    def work(self) -> float:
        """In a unit that is about proportional to time; scoring costs something too."""
        return self.photos * (1.0 + (20.0 if self.passes is None else self.passes))


def estimate(
    costs: Sequence[Cost], sources: Sequence[str], time_cell: Callable[[int], tuple[Timed, int]]
) -> list[float]:
    """Seconds that each cell will take.

    For each source the cell with the fewest backward passes is timed, of those that make any. The others are scaled by
    their passes; a cell whose passes are not known is timed itself.

    Args:
        costs: of the cells.
        sources: names of the attacked networks.
        time_cell: times a batch of the cell at a place; returns it and the number of processes.

    Example:
        >>> timed = Timed(4, True, seconds=3.0, attack=2.0, passes=10, memory=None, fits=None)
        >>> estimate([Cost(20, 100), Cost(10, 100), Cost(0, 100), Cost(10, 0)], ["a"] * 4, lambda place: (timed, 2))
        [62.5, 37.5, 12.5, 0.0]
    """
    known: dict[str, tuple[Timed, int]] = {}
    seconds = [0.0] * len(costs)
    for place in sorted(range(len(costs)), key=lambda one: (not costs[one].passes, costs[one].passes or 0)):
        (passes, photos), source = costs[place], sources[place]
        if not photos:
            continue
        if passes is None:
            batch, processes = time_cell(place)
        else:
            if source not in known:
                known[source] = time_cell(place)
            batch, processes = known[source]
        scale = passes / batch.passes if passes is not None and batch.passes else 1.0
        each = (batch.seconds - batch.attack + scale * batch.attack) / max(batch.photos, 1)
        seconds[place] = each * ceil(photos / processes)
    return seconds


def show_costs(
    names: Sequence[str], images: int, costs: Sequence[Cost], seconds: Sequence[float], memory: float | None = None
) -> None:
    """Print what each cell costs, and all of them.

    Args:
        names: of the cells.
        images: of each cell, with those that are done.
        costs: of the cells.
        seconds: that each will take.
        memory: bytes per photo at the peak, of the batch that took most; None if they are not known.
    """
    table = Table(
        Column("cell", overflow="fold"), title=f"{counted(len(names), 'cell')}, {counted(images, 'image')} each"
    )
    for heading in ("passes per image", "backward passes", "time"):
        table.add_column(heading, justify="right")
    for name, cost, time in zip(names, costs, seconds, strict=True):
        one = cost.passes
        passes = ("?", "?") if one is None else (f"{one:g}", f"{one * images:,.0f}")
        table.add_row(name, *passes, f"about {duration(time)}" if cost.photos else "done")
    known = sum(cost.passes * images for cost in costs if cost.passes is not None)
    more = "" if all(cost.passes is not None for cost in costs) else " and more"
    table.add_section()
    table.add_row("all", "", f"{known:,.0f}{more}", f"about {duration(sum(seconds))}")
    console = Console(width=table_width())
    console.print(table)
    if memory is not None:
        console.print(f"Memory: up to {memory / 1e6:,.0f} MB per photo at the peak of the attacks that were timed")
    console.print(_NOTE, style="dim", highlight=False)

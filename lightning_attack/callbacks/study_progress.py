"""`StudyProgress`: one progress bar for all runs of a study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class StudyProgress(Callback):
    """Show the cells done, the time gone, and an estimate of the time left from the backward passes of each cell.

    On a terminal it is a bar, in a log file a line after each cell.

    Args:
        names: names of the cells.
        costs: cost of an image of each cell, in any unit that is about proportional to time.
        shown: whether this process shows anything.
    """

    def __init__(self, names: Sequence[str], costs: Sequence[float], shown: bool = True) -> None:
        self.names, self.costs, self.shown = list(names), list(costs), shown
        self._console = Console(stderr=True)
        self._cell, self._began = -1, time.monotonic()
        self._done = 0.0
        columns = (
            BarColumn(30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar = Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True)
        self._task = self._bar.add_task("starting", total=sum(self.costs))

    def __enter__(self) -> StudyProgress:
        if self.shown and self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, cell: int) -> None:
        """A cell begins."""
        self._cell = cell
        self._bar.update(self._task, description=f"{cell + 1} of {len(self.names)}: {self.names[cell]}")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        share = (batch_idx + 1) / max(trainer.num_predict_batches[0], 1)
        self._bar.update(self._task, completed=self._done + share * self.costs[self._cell])

    def end(self, seconds: float) -> None:
        """The cell is done, and took `seconds`."""
        self._done += self.costs[self._cell]
        self._bar.update(self._task, completed=self._done)
        left = (time.monotonic() - self._began) * (sum(self.costs) / self._done - 1)
        if self.shown and not self._console.is_terminal:
            outlook = f"about {left / 60:.1f} minutes left" if self._cell + 1 < len(self.names) else "all done"
            self._console.print(
                f"cell {self._cell + 1} of {len(self.names)}, {self.names[self._cell]}: {seconds:.0f} s; {outlook}",
                soft_wrap=True, highlight=False,
            )  # fmt: skip

"""`StudyProgress`: how far the runs of a study are, all together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_attack.callbacks.pace import Pace, photos_for_one, photos_of_run
from lightning_attack.callbacks.start_line import device_words, going_on, photo_words
from lightning_attack.common.durations import duration
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput


class StudyProgress(Callback):
    """Say what the study is; then show the cells done, and the time left by the backward passes of each cell.

    On a terminal it is a bar, in a log file a line for each cell and one every `every` seconds.

    Args:
        names: names of the cells.
        costs: what is left to do of each cell, in any unit that is about proportional to time; 0: it is done already.
        folder: of the study.
        shown: whether this process shows anything.
        every: seconds between the lines where there is no terminal.
    """

    clock = staticmethod(time.monotonic)

    def __init__(
        self, names: Sequence[str], costs: Sequence[float], folder: str = "", shown: bool = True, every: float = 30.0
    ) -> None:
        self.names, self.costs, self.folder, self.shown, self.every = list(names), list(costs), folder, shown, every
        self._console = Console(stderr=True)
        self._cell, self._began, self._last = -1, self.clock(), self.clock()
        self._done = self._current = 0.0
        self._pace: Pace | None = None
        self._introduced = False
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
        self._cell, self._current = cell, 0.0
        self._bar.update(self._task, description=f"{cell + 1} of {len(self.names)}: {self.names[cell]}")

    def on_predict_start(self, trainer: Trainer, pl_module: AttackModule) -> None:
        if not self._introduced:
            self._introduced, self._began = True, self.clock()  # cells that were done already took no time worth it
            self._say(self._first_line(trainer))
        self._pace, self._last = Pace(*photos_of_run(trainer), self.clock), self.clock()
        if said := going_on(trainer):
            self._say(f"{self._where()}: {said}")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: AttackOutput, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self._current = self.costs[self._cell] * (batch_idx + 1) / max(trainer.num_predict_batches[0], 1)
        self._bar.update(self._task, completed=self._done + self._current)
        if self._pace:
            self._pace.add((len(outputs) + len(outputs.skipped)) * photos_for_one(trainer))
            self._line()

    def on_attack_status(self, status: str) -> None:
        """What `AttackModule` is doing, see `StatusListener`: a batch may take an hour."""
        self._line(f"; now: {status}")

    def end(self, seconds: float) -> None:
        """The cell is done, and took `seconds`."""
        self._done, self._current, self._pace = self._done + self.costs[self._cell], 0.0, None
        self._bar.update(self._task, completed=self._done)
        if not self._console.is_terminal:
            took = duration(seconds) if self.costs[self._cell] else "done already"
            last = self._cell + 1 == len(self.names)
            outlook = "; all done" if last else f"; {self._outlook()}" if self._introduced else ""
            self._say(f"{self._where()}: {took}{outlook}")

    def stopped(self, command: str) -> None:
        """A signal has ended the study in the current cell; `command` goes on with it."""
        self._say(f"stopped in {self._where()}; {self._cell} done before it. To go on: {command}")

    def _first_line(self, trainer: Trainer) -> str:
        cells = f"{len(self.names)} cell{'s' * (len(self.names) != 1)}"
        done = sum(cost == 0 for cost in self.costs)
        more = f"; {done} of them are done, going on" if done else ""
        return f"study: {cells} of {photo_words(trainer)} on {device_words(trainer)}; folder: {self.folder}{more}"

    def _where(self) -> str:
        return f"cell {self._cell + 1} of {len(self.names)}, {self.names[self._cell]}"

    def _outlook(self) -> str:
        """How long the study will still take, if that can be told."""
        done, total = self._done + self._current, sum(self.costs)
        if not 0 < done < total:
            return "time left not known yet" if done < total else "nothing left"
        return f"about {duration((self.clock() - self._began) * (total / done - 1))} left for the study"

    def _line(self, more: str = "") -> None:
        if self._pace and not self._console.is_terminal and self.clock() - self._last > self.every:
            self._last = self.clock()
            self._say(f"{self._where()}: {self._pace}; {self._outlook()}{more}")

    def _say(self, line: str) -> None:
        if self.shown:
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

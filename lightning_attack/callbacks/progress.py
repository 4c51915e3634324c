"""`AttackProgress`: what a run is, how far it is, and what the attack is doing."""

from __future__ import annotations

import time
from math import isfinite
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_attack.callbacks.pace import Pace, photos_for_one, photos_of_run
from lightning_attack.callbacks.start_line import going_on, start_line
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput


class AttackProgress(ProgressBar):
    """Say what the run is; then show the batches done, the time left, and the current step of the attack.

    On a terminal it is a bar, in a log file a line every `every` seconds: photos done, speed, and time left. Of several
    processes the first counts its own photos, which stand for those of all.

    Args:
        every: seconds between the lines where there is no terminal.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, every: float = 30.0) -> None:
        super().__init__()
        self.every = every
        self._enabled = True
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._pace: Pace | None = None
        self._introduced = False
        self._folder: str | None = None
        self._last = 0.0

    def enable(self) -> None:
        """Show it (Lightning calls this on rank 0)."""
        self._enabled = True

    def disable(self) -> None:
        """Hide it (Lightning calls this on the other ranks)."""
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            self._console.print(*args, **kwargs)

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._introduced = False
        # Broadcasts from the first process: all of them must ask, and not in a teardown that a signal may have started.
        self._folder = trainer.log_dir

    def on_predict_start(self, trainer: Trainer, pl_module: AttackModule) -> None:
        if not self._enabled:
            return
        self._introduce(trainer, pl_module)
        if self._console.is_terminal:
            columns = (BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True)
            batches = trainer.num_predict_batches[0]
            self._bar.add_task("starting", total=batches if isfinite(batches) else None)
            self._bar.start()
        else:
            self._pace, self._last = Pace(*photos_of_run(trainer), self.clock), self.clock()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: AttackOutput, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=batch_idx + 1)
        elif self._pace:
            self._pace.add((len(outputs) + len(outputs.skipped)) * photos_for_one(trainer))
            self._line()

    def on_predict_end(self, trainer: Trainer, pl_module: AttackModule) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        if self._enabled and not self._introduced:  # no photo is left, so that nothing has started
            self._introduce(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        self._stop()

    def on_attack_status(self, status: str) -> None:
        """Show what `AttackModule` is doing, see `StatusListener`."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], description=status)
        elif self._pace:
            self._line(f"; now: {status}")  # a batch may take an hour

    def _introduce(self, trainer: Trainer, module: AttackModule) -> None:
        self._introduced = True
        for line in (start_line(trainer, module, self._folder), going_on(trainer)):
            if line:
                self._say(line)

    def _line(self, more: str = "") -> None:
        if self.clock() - self._last > self.every:
            self._last = self.clock()
            self._say(f"{self._pace}{more}")

    def _say(self, line: str) -> None:
        self.print(line, soft_wrap=True, highlight=False, markup=False)

    def _stop(self) -> None:
        self._pace = None
        if self._bar:
            self._bar.stop()
            self._bar = None

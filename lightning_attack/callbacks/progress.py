"""`AttackProgress`: a progress bar that shows what the attack is doing."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_attack.predict.module import AttackModule


class AttackProgress(ProgressBar):
    """Show the batches done, the time left, and the current step of the attack or of the scoring.

    On a terminal it is a bar, in a log file a line every `every` seconds.

    Args:
        every: seconds between the lines where there is no terminal.
    """

    def __init__(self, every: float = 30.0) -> None:
        super().__init__()
        self.every = every
        self._enabled = True
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
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

    def on_predict_start(self, trainer: Trainer, pl_module: AttackModule) -> None:
        if not self._enabled:
            return
        self._last = time.monotonic()
        if self._console.is_terminal:
            columns = (BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True)
            self._bar.add_task("starting", total=trainer.num_predict_batches[0])
            self._bar.start()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=batch_idx + 1)
        elif self._enabled and time.monotonic() - self._last > self.every:
            self._last = time.monotonic()
            self.print(f"attacked batch {batch_idx + 1} of {trainer.num_predict_batches[0]}")

    def on_predict_end(self, trainer: Trainer, pl_module: AttackModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        self._stop()

    def on_attack_status(self, status: str) -> None:
        """Show what `AttackModule` is doing, see `StatusListener`."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], description=status)

    def _stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

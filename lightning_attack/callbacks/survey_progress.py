"""`SurveyProgress`: shows how many photos were looked at before training."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


class SurveyProgress:
    """Called with a key such as `data.train`, the photos done and their number; a bar, or lines in a log file.

    Args:
        shown: whether it shows anything.
    """

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown
        self._console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._last = time.monotonic()

    def __enter__(self) -> SurveyProgress:
        if self.shown and self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, key: str, done: int, count: int) -> None:
        if not self.shown:
            return
        if self._console.is_terminal:
            text = f"looking at {key}"
            task = next((task.id for task in self._bar.tasks if task.description == text), None)
            task = self._bar.add_task(text, total=count) if task is None else task
            self._bar.update(task, completed=done)
        elif time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self._console.print(f"looked at {done} of {count} photos of {key}", highlight=False)

"""`BackgroundWriter`: a thread that writes a batch's files while the next batch is attacked; `WritingCallback`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

WAITING = 8
"""Pieces of work that may wait; they hold the images and label maps of two or three batches."""


class BackgroundWriter:
    """One thread that does pieces of work in the order in which they were submitted.

    After a piece that fails the others are dropped (an image whose file could not be written must have no record), and
    the next call raises what it has raised.

    Example:
        >>> writer, done = BackgroundWriter(), []
        >>> writer.submit_last(done.append, "record"); writer.submit(done.append, "image")
        >>> writer.finish()
        >>> done
        ['image', 'record']
        >>> writer.submit(int, "one")
        >>> try:
        ...     writer.submit(done.append, "next"); writer.finish()
        ... except ValueError as error:
        ...     print(error, done)
        invalid literal for int() with base 10: 'one' ['image', 'record']
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pieces: deque[Future[None]] = deque()
        self._held: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._failed = False

    def submit(self, work: Callable[..., object], *args: Any) -> None:
        """Have `work(*args)` done; waits while too much is waiting."""
        while self._pieces and (self._pieces[0].done() or len(self._pieces) >= WAITING):
            self._wait_for_first()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="background-writer")
        self._pieces.append(self._pool.submit(self._run, work, args))

    def submit_last(self, work: Callable[..., object], *args: Any) -> None:
        """Have it done after everything that any callback submits for this batch, whichever comes first."""
        self._held.append((work, args))

    def end_batch(self) -> None:
        """Submit what was held back for the end of the batch; to be called when all callbacks have seen its outputs."""
        held, self._held = self._held, []
        for work, args in held:
            self.submit(work, *args)

    def finish(self) -> None:
        """Wait until all is done. Afterwards there is no thread, as before the first piece."""
        self.end_batch()
        while self._pieces:
            self._wait_for_first()
        self._end()

    def abort(self) -> None:
        """The run has failed: finish what was submitted, and drop what was held back for a batch that did not end."""
        self._held = []
        with suppress(Exception):  # the run reports its own error
            self.finish()

    def _run(self, work: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            work(*args)
        except BaseException:
            self._failed = True
            raise

    def _wait_for_first(self) -> None:
        try:
            self._pieces.popleft().result()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._failed = None, False
        self._pieces.clear()
        self._held = []


class _EndOfBatch(Callback):
    """The last callback of a Trainer, with the writer of all others: when it is called they have seen the outputs."""

    def __init__(self) -> None:
        self.writer = BackgroundWriter()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.writer.end_batch()


class WritingCallback(Callback):
    """A callback that writes in the background, in one thread with all others of the same Trainer.

    Everything is written before callbacks hear of `on_predict_end`; when a run fails, what was submitted is written
    before any of them cleans up.
    """

    @staticmethod
    def writer(trainer: Trainer) -> BackgroundWriter:
        """The writer that all callbacks of a Trainer share."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        last = next((callback for callback in callbacks if isinstance(callback, _EndOfBatch)), None)
        if last is None:
            last = _EndOfBatch()
            callbacks.append(last)  # Lightning calls hooks in the order of this list, and sees what is appended
        return last.writer

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.writer(trainer).finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.writer(trainer).abort()

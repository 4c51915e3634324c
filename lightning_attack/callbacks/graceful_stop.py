"""`GracefulStop`: a run that is told to stop finishes its batch, and can go on later."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from lightning.pytorch import Callback, Trainer

from lightning_attack.callbacks.run_folder import RunFolder
from lightning_attack.common.first_process import in_first_process
from lightning_attack.predict.module import AttackModule
from lightning_attack.runs.names import STOP

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Windows has no SIGUSR1 and SIGUSR2."""


class GracefulStop(Callback):
    """On SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 the running batch is finished and stored, then the run ends as usual.

    All processes stop, whichever got the signal: it leaves a file `.stop` in the run's folder, which the others see
    after their batch. Without a `RunFolder` other scripts may have the same folder, and the file gets a name of its
    own. A SIGINT after the first signal interrupts at once; the first process says so. `signal` is the
    number of the signal that stopped the run, else 0; the command line's exit code is 128 + signal. A process whose
    launcher was killed ends after its batch too, for nobody waits for it. Without a `RunFolder`, which arranges
    callbacks, it must be the last one of the list, so that the batch is stored before.
    """

    place = 5

    def __init__(self) -> None:
        self.signal = 0
        self._file = Path()
        self._before: dict[int, Any] = {}
        self._parent = 0
        self._speaks = False
        self._connector: Any = None

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        self.signal, self._parent = 0, os.getppid()
        self._speaks = trainer.is_global_zero
        folder = Path(trainer.log_dir or ".")  # talks to the other processes: all of them must ask
        locked = any(isinstance(one, RunFolder) for one in trainer.callbacks)  # type: ignore[attr-defined]
        self._file = in_first_process(trainer, lambda: _stop_file(folder, locked))
        # Now, for a process without a batch, and for the wait at the end: Lightning's own handlers come later, ignore
        # SIGTERM in predict, and give way to these when the loop is over.
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._told)
        # Until it is torn down, Lightning calls its own function on SIGTERM too. That one waits for a broadcast of the
        # first process: a process without photos, which has no `on_predict_start`, would wait for ever.
        self._connector = getattr(trainer, "_signal_connector", None)
        if self._connector is not None:
            self._connector._sigterm_notifier_fn = _ignore

    def on_predict_start(self, trainer: Trainer, pl_module: AttackModule) -> None:
        for number in SIGNALS:
            signal.signal(number, self._told)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: AttackModule, *_: Any) -> None:
        # On Windows the number stays the same when the launcher has ended: there this never happens.
        if not trainer.is_global_zero and os.getppid() != self._parent:
            raise SystemExit(1)
        if self.signal and not self._file.exists():
            self._file.write_text(str(self.signal))
        if self._file.exists():
            raise StopIteration  # ends the loop of batches, and nothing else

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        trainer.strategy.barrier("all processes have stopped")
        if self._file.exists():
            self.signal = int(self._file.read_text() or signal.SIGTERM)
        trainer.strategy.barrier("all processes know why")
        in_first_process(trainer, lambda: self._file.unlink(missing_ok=True))
        self._restore()

    def _told(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.signal = not self.signal, number
        if first and self._speaks:
            _say(
                f"{signal.Signals(number).name}: the batch that runs is finished first, then the run stops; Ctrl-C "
                "(SIGINT) from now on stops it at once"
            )

    def _restore(self) -> None:
        if self._connector is not None:
            vars(self._connector).pop("_sigterm_notifier_fn", None)
            # After an error Lightning puts back what it found when the loop began: our handlers.
            found = self._connector._original_handlers
            found.update({number: handler for number, handler in self._before.items() if number in found})
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _stop_file(folder: Path, locked: bool) -> Path:
    """The file by which the processes of this run tell each other, which is not there."""
    file = folder / (STOP if locked else f"{STOP}.{uuid4().hex}")
    file.unlink(missing_ok=True)  # a run that was killed has left it
    return file


def _say(line: str) -> None:
    """Write a line to standard error from a handler of signals.

    Past Python's buffers and past the progress bar, whose locks the code that was interrupted may hold.
    """
    with suppress(OSError):  # nobody reads it any more
        os.write(2, f"\n{line}\n".encode())


def _ignore(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing."""

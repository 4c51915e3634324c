"""`NewFolder`: a run that fails before it has done anything leaves no folder behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer


class NewFolder(Callback):
    """Knows the folder that a run makes, and takes it away again if the run fails before its second step.

    `look` comes before the trainer's method, `discard` after it has failed. A folder with a checkpoint stays.
    """

    def __init__(self) -> None:
        self._made: list[Path] = []
        self._step, self._unused = 0, False

    def look(self, trainer: Trainer) -> None:
        """Note which folders there are not yet: before the trainer begins, for its loggers make theirs at once."""
        folder = trainer.log_dir
        if folder is not None and "://" not in folder and trainer.is_global_zero:
            places = [Path(folder).absolute(), *Path(folder).absolute().parents]
            self._made = [place for place in places if not place.exists()]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step  # of a run that goes on, not 0

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unused = not (trainer.training and trainer.global_step > self._step + 1)

    def discard(self) -> None:
        """Take the folder away if it is of no use; when the trainer has ended, for loggers write until then."""
        if not self._unused or not self._made or any(self._made[0].rglob("*.ckpt")):
            return
        shutil.rmtree(self._made[0], ignore_errors=True)
        for place in self._made[1:]:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()

"""`RunFolder`: one new folder for each run, and nothing left of a run that failed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_attack.module import AttackModule


class RunFolder(Callback):
    """Make the run's folder and log TensorBoard events into it, so that `trainer.log_dir` is this folder.

    The folder is `results/<attack>_<source>/version_N` with the first free N, or `results/<run_name>`. It is made when
    the run starts; a run that fails takes it away again, since it has no table and cannot be continued. Must be the
    first callback: others write into `trainer.log_dir` from their `setup` on.

    Args:
        results: folder of all runs.
        run_name: a name of one's own, which must be new.

    Raises:
        FileExistsError: there is a folder `results/<run_name>` already.
        ValueError: `run_name` is no plain name.
    """

    def __init__(self, results: str = "results", run_name: str | None = None) -> None:
        if run_name and Path(run_name).name != run_name:
            raise ValueError(f"run_name='{run_name}': must be the name of a folder, without '/' or '..'")
        self.results, self.run_name = results, run_name
        self._made: Path | None = None
        self._parents: list[Path] = []
        self._logger: TensorBoardLogger | None = None

    def setup(self, trainer: Trainer, pl_module: AttackModule, stage: str) -> None:
        self._made = None  # of an earlier run with the same Trainer, which is finished and stays
        if trainer.is_global_zero:
            self._made = self._make(re.sub(r"[^\w.-]+", "_", f"{pl_module.attack.name}_{pl_module.source.name}"))
        folder = Path(trainer.strategy.broadcast(str(self._made)))
        others = [logger for logger in trainer.loggers if logger is not self._logger]
        self._logger = TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
        trainer.loggers = [self._logger, *others]

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        if self._made:
            for logger in trainer.loggers:
                logger.finalize("failed")
            shutil.rmtree(self._made, ignore_errors=True)
            for parent in self._parents:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()

    def check(self) -> None:
        """Raise `FileExistsError` if `run_name` is taken."""
        if self.run_name and (Path(self.results) / self.run_name).exists():
            raise FileExistsError(f"'{Path(self.results) / self.run_name}' exists already; choose another --run_name")

    def _make(self, title: str) -> Path:
        self.check()
        parent = Path(self.results) if self.run_name else Path(self.results) / title
        # Those that are made here go again with a failed run; those that were there stay.
        self._parents = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        if self.run_name:
            folder = parent / self.run_name
            folder.mkdir()
            return folder
        number = 0
        while True:
            folder = parent / f"version_{number}"
            try:
                folder.mkdir()  # of two jobs that start together, one gets the number and the other the next
                return folder
            except FileExistsError:
                number += 1

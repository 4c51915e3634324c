"""`RunLogger`: TensorBoard's events in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLogger(TensorBoardLogger):
    """TensorBoard's events in the folder of a run, and its hyperparameters in `hparams.yaml`, if it has logged any.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, name="", version=folder.name, default_hp_metric=False)
        self._folder = folder

    @property
    def log_dir(self) -> str:
        """The run's folder as it is; the base class would replace `~` and `$`, which may be in its name."""
        return str(self._folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        if self._experiment is None:
            from lightning_attack.callbacks.events_file import EventsWriter  # loads TensorBoard, which takes a second

            self._experiment = EventsWriter(self.log_dir)
        return self._experiment

    @rank_zero_only
    def save(self) -> None:
        # Lightning saves before there is anything to say, and then leaves a file alone that exists: it would hold `{}`.
        if self.hparams and Path(self.log_dir).is_dir():
            save_hparams_to_yaml(Path(self.log_dir) / self.NAME_HPARAMS_FILE, self.hparams)


def is_default(logger: Logger, trainer: Trainer) -> bool:
    """Whether it is the logger that Lightning makes where none was asked for, into `./lightning_logs`."""
    return (
        type(logger) is TensorBoardLogger
        and logger.name == "lightning_logs"
        and Path(logger.save_dir) == Path(trainer.default_root_dir)
    )

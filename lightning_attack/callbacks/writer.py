"""`Writing`: what callbacks that write behind the attack have in common."""

from __future__ import annotations

from contextlib import suppress

from lightning.pytorch import Callback, Trainer

from lightning_attack.predict.module import AttackModule


class Writing(Callback):
    """A callback that has `AttackModule.behind` write for it: when a run fails, that is done before anything else."""

    def on_exception(self, trainer: Trainer, pl_module: AttackModule, exception: BaseException) -> None:
        with suppress(Exception):  # the run has failed already; what it has finished is kept
            pl_module.behind.finish()

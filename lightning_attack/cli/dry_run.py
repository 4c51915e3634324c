"""`--dry_run`: time a batch of a run, and say what the whole run will take."""

from __future__ import annotations

import sys
from math import ceil

from lightning.pytorch import Trainer

from lightning_attack.callbacks.start_line import device_words, network_words
from lightning_attack.callbacks.timing import Timed, Timing
from lightning_attack.cli.errors import UsageError
from lightning_attack.common.counted import counted
from lightning_attack.common.durations import duration
from lightning_attack.data import SegmentationDataModule
from lightning_attack.predict.module import AttackModule


def time_batch(trainer: Trainer, module: AttackModule, data: SegmentationDataModule) -> Timed:
    """Attack the first batches and time the last of them: the second, on CUDA the third, where graphs are recorded.

    Nothing is written: the trainer's callbacks and loggers are taken away.

    Raises:
        UsageError: no image of them could be used.
    """
    timing = Timing()
    trainer.callbacks, trainer.loggers = [timing], []  # type: ignore[attr-defined]
    batches = 3 if trainer.strategy.root_device.type == "cuda" else 2
    trainer.limit_predict_batches = batches  # type: ignore[attr-defined]
    if trainer.is_global_zero:  # on a slow machine this may take minutes
        said = f"dry run: {module.attack.name} attacks {batches} batches at most, to time the last of them"
        print(said, file=sys.stderr, flush=True)
    trainer.predict(module, datamodule=data, return_predictions=False)
    if timing.timed is None and trainer.is_global_zero:
        raise UsageError(f"a dry run times the first {batches} batches, and no image in them could be used")
    return timing.timed or Timed(0, False, 0.0, 0.0, 0.0, None, None)  # a process without photos


def in_words(timed: Timed, trainer: Trainer, module: AttackModule, photos: int, done: int = 0) -> str:
    """What a dry run says, in a few lines.

    Args:
        timed: the batch.
        trainer: of the run.
        module: of the run.
        photos: of the whole run.
        done: those that an earlier part of the run has done.
    """
    processes = trainer.world_size
    left, each = max(photos - done, 0), timed.seconds / timed.photos
    warm = "after another to warm up" if timed.warm else "the only one, so with what comes only once"
    by = f" in {processes} processes" if processes > 1 else ""
    lines = [
        f"Dry run, nothing is written: {network_words(module)}; {counted(photos, 'photo')}"
        + (f", {done} of them done," if done else "") + f" on {device_words(trainer)}",
        f"A batch of {timed.photos} took {duration(timed.seconds)} ({warm}), {each:.3g} s per photo: "
        f"about {duration(each * ceil(left / processes))} for {counted(left, 'photo')}{by}",
    ]  # fmt: skip
    if timed.memory is not None:
        fits = f"; data.batch_size={timed.fits} would fill this GPU" if timed.fits else ""
        lines.append(f"Memory: {timed.memory / 1e6:,.0f} MB per photo at the peak of the attack{fits}")
    return "\n".join(lines)

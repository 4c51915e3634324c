"""`Pace`: how far a run is, how fast, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import Any

from lightning.pytorch import Trainer

from lightning_attack.common.data_module import of_data
from lightning_attack.common.durations import duration


class Pace:
    """Counts photos. The first batch does not count for the speed: in it networks are rewritten, compiled, warmed up.

    Args:
        total: photos of the whole run; infinite if it is not known.
        done: those that earlier parts of the run have done.
        clock: seconds of a steady clock.

    Example:
        >>> seconds = iter([0, 50, 54])
        >>> pace = Pace(1000, 773, lambda: next(seconds))
        >>> pace.add(8)
        >>> print(pace)
        781 of 1000 photos, 6.2 s per photo, about 22 min 49 s left
        >>> pace.add(8)
        >>> print(pace)
        789 of 1000 photos, 2.0 photos/s, about 1 min 46 s left
    """

    def __init__(self, total: float, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done = total, float(done)
        self._clock = clock
        self._marks = [(clock(), self.done)]

    def add(self, photos: float) -> None:
        """A batch of so many photos is done, in all processes together."""
        self.done = min(self.done + photos, self.total)
        self._marks = [*self._marks[:2], (self._clock(), self.done)]

    @property
    def rate(self) -> float | None:
        """Photos in a second; None before the first batch is done."""
        (begin, before), (end, after) = self._marks[-2 if len(self._marks) > 2 else 0], self._marks[-1]
        return (after - before) / (end - begin) if after > before and end > begin else None

    @property
    def left(self) -> float | None:
        """Seconds until the run is done; None where that cannot be told."""
        return (self.total - self.done) / self.rate if self.rate and isfinite(self.total) else None

    def __str__(self) -> str:
        of = f" of {self.total:.0f}" if isfinite(self.total) else ""
        words = [f"{self.done:.0f}{of} photos"]
        if self.rate:
            words.append(f"{self.rate:.1f} photos/s" if self.rate >= 1 else f"{1 / self.rate:.1f} s per photo")
        if self.left:
            words.append(f"about {duration(self.left)} left")
        return ", ".join(words)


def photos_of_run(trainer: Trainer) -> tuple[float, int]:
    """Photos of the whole run, infinite if that is not known, and how many earlier parts of it have done."""
    _, all_photos = _to_do(trainer)
    indices = of_data(trainer, "indices")
    if indices is None:
        return all_photos, 0
    finished = len(of_data(trainer, "finished", ()))
    return finished + min(all_photos, len(indices()) - finished), finished


def was_stopped(trainer: Trainer) -> bool:
    """Whether this process has left its loop before the last batch."""
    loop = trainer.predict_loop
    return not loop.skip and not loop.batch_progress.is_last_batch  # type: ignore[attr-defined]


def photos_for_one(trainer: Trainer) -> float:
    """For how many photos of all processes one of this process stands: their shares need not be equal."""
    own, all_photos = _to_do(trainer)
    return all_photos / own if own and isfinite(all_photos) else trainer.world_size


def _to_do(trainer: Trainer) -> tuple[float, float]:
    """Photos that this process and all processes together have to do; infinite where that is not known."""
    loader: Any = trainer.predict_dataloaders
    batches = float(trainer.num_predict_batches[0]) if trainer.num_predict_batches else 0.0
    own = batches * (batch_size(trainer) or 1)
    try:
        # Lightning puts a batch sampler of its own around that of several processes.
        share, all_photos = len(getattr(loader.batch_sampler, "sampler", loader.sampler)), len(loader.dataset)
    except (AttributeError, TypeError):  # not one loader, or of a stream
        return own, own * trainer.world_size
    if own < share:  # the trainer limits the batches
        return own, min(own * trainer.world_size, all_photos)
    return share, all_photos


def batch_size(trainer: Trainer) -> int | None:
    """Photos in a batch of one process; None if the loader does not tell."""
    loader = trainer.predict_dataloaders
    # Lightning puts a batch sampler of its own into a loader, which then has no batch size.
    return getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)

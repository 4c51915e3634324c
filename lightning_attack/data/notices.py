"""Warnings about what was found in a data set: each once, and from the main process only."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import get_worker_info


def warn(message: str) -> None:
    """Warn the user, unless this is a worker of a loader: what it reads, the check before the run has read too."""
    if get_worker_info() is None:
        rank_zero_warn(message)


class Notices:
    """Warnings of one data set, each given once however many files show what it says."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def __call__(self, topic: str, message: str) -> None:
        """Warn, unless there was a warning about the same topic before."""
        if topic not in self._given:
            self._given.add(topic)
            warn(message)

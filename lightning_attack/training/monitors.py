"""`check_monitors`: do callbacks such as `ModelCheckpoint` watch a figure that is logged?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from lightning.pytorch import Trainer

from lightning_attack.common.errors import UserError


class MonitorError(UserError, ValueError):
    """A callback monitors a figure under a name that is nearly, but not quite, one that is logged."""


def check_monitors(trainer: Trainer, classes: Iterable[str] | None) -> None:
    """Raise `MonitorError` for a mistyped figure: it would be missed at the end of the first epoch only.

    A name unlike all that `SegmentationTask` logs passes, for a callback of the user may log it.

    Args:
        trainer: with its callbacks.
        classes: names of the classes.
    """
    known = ["train/loss", "val/miou", "val/accuracy", *(f"val/iou/{name}" for name in classes or ())]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or monitor in (*known, "epoch", "step"):
            continue
        plain = {_plain(name): name for name in known}
        if close := get_close_matches(_plain(monitor), plain, n=1, cutoff=0.75):
            raise MonitorError(
                f"{type(callback).__name__} has monitor: {monitor}, which is not logged\n"
                f"did you mean {plain[close[0]]}? Logged are {', '.join(known[:3])} and val/iou/CLASS"
            )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())

"""`differences`: which settings a training that goes on from a checkpoint has otherwise than it began with."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_attack.common.errors import UserError
from lightning_attack.common.pixels import in_levels


class TrainingError(UserError, ValueError):
    """The settings of a training do not fit each other, or the checkpoint that it goes on from."""


def differences(begun: Mapping[str, object], now: Mapping[str, object]) -> str:
    r"""A line for each setting that differs, each after a newline; empty if none does.

    Args:
        begun: settings in the checkpoint; those that it does not know are not compared.
        now: settings as they are given.

    Example:
        >>> differences({"eps": 8 / 255, "seed": 0}, {"eps": 4 / 255, "seed": 0, "momentum": 0.9})
        '\n  eps: 8/255 in the checkpoint, 4/255 now'
        >>> differences({"lr": 0.1}, {"lr": 0.1})
        ''
    """
    return "".join(
        f"\n  {name}: {_said(name, begun[name])} in the checkpoint, {_said(name, value)} now"
        for name, value in now.items()
        if name in begun and begun[name] != value
    )


def _said(name: str, value: object) -> str:
    return in_levels(value, 6) if name in ("eps", "step_size") and isinstance(value, float) else str(value)

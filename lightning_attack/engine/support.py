"""What this build of torch and its devices can do."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Literal

import torch

from lightning_attack.common.errors import UserError

Precision = Literal["float32", "bf16"]
Kind = Literal["eager", "fused", "compiled"]

NOT_EXACT = "set exact to false, or run on a CPU"
"""What to do where `exact` cannot be had on a GPU."""


class EngineError(UserError, ValueError):
    """An engine cannot do what was asked for on this device."""


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise an error if the attack's passes are to compute in bfloat16 and the device does not do that.

    Raises:
        EngineError: it does not; in float32, results would have the wrong name.

    Example:
        >>> check_precision("float32", torch.device("meta"))
        >>> check_precision("bf16", torch.device("meta"))
        Traceback (most recent call last):
            ...
        lightning_attack.engine.support.EngineError: precision=bf16: the engine computes in bfloat16 on CPUs and CUDA \
devices only, not on meta; choose precision=float32
    """
    if precision == "bf16" and (reason := _lacks_bfloat16(device)):
        raise EngineError(f"precision=bf16: {reason}; choose precision=float32")


@cache
def _lacks_bfloat16(device: torch.device) -> str:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ""
        return f"{torch.cuda.get_device_name(device)} does not compute in bfloat16"
    if device.type == "cpu":
        if missing():
            return missing()
        able = import_module("lightning_attack.engine.internals").cpu_has_bfloat16()
        return "" if able else "this processor does not compute in bfloat16 (it has no AVX-512)"
    return f"the engine computes in bfloat16 on CPUs and CUDA devices only, not on {device.type}"


@cache
def missing() -> str:
    """What this build of torch lacks that graphs are made of, as a reason to do without them; empty if it has all."""
    try:
        import_module("lightning_attack.engine.internals")
    except (AttributeError, ImportError) as error:
        return f"torch {torch.__version__} lacks a part that the engine needs ({error})"
    return ""

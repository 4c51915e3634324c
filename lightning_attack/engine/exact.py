"""`exact_on`: two runs on one GPU give the same to the last bit, at the price of speed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from lightning_attack.engine.support import NOT_EXACT, EngineError, Kind, missing
from lightning_attack.engine.tf32 import full_float32


@contextmanager
def exact_on(device: torch.device) -> Iterator[None]:
    """Inside the `with` block, float32 is float32, and CUDA computes everything in a fixed order.

    On other devices nothing changes. All settings are as before afterwards.

    Args:
        device: where networks are.

    Raises:
        EngineError: inside the block, an operator has no algorithm with a fixed order.
    """
    with ExitStack() as stack:
        stack.enter_context(full_float32())
        if device.type == "cuda":
            # Imported late: it needs parts of torch that it may lack, see `missing`.
            from lightning_attack.engine.fixed_order import fixed_order

            stack.enter_context(_deterministic())
            stack.enter_context(fixed_order("CUDA"))
            stack.enter_context(_OneOperator())
        yield


def check_exact(kind: Kind | None, device: torch.device) -> None:
    """Make ready for `exact_on`, before anything is computed on the device.

    cuBLAS adds in a fixed order if its environment says so when it is first used; a choice of the user's stays.

    Raises:
        EngineError: nobody knows in which order what `torch.compile` makes for CUDA adds; or torch lacks a part.

    Example:
        >>> check_exact("compiled", torch.device("cpu"))
    """
    if device.type != "cuda":
        return
    if missing():
        raise EngineError(f"exact=true: {missing()}; {NOT_EXACT}")
    if kind == "compiled":
        raise EngineError("exact=true: engine=compiled adds in no fixed order on CUDA; choose fused or eager")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def _deterministic() -> Iterator[None]:
    """Torch's own deterministic algorithms; cuDNN does not choose by measuring, which differs from run to run."""
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        yield
    except RuntimeError as error:
        reason, told, _ = str(error).partition(", but you set 'torch.use_deterministic_algorithms(True)'")
        if not told:
            raise
        raise EngineError(f"exact=true: {reason}, so results would change from run to run; {NOT_EXACT}") from error
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark


class _OneOperator(TorchFunctionMode):
    """Keeps resizing and padding at their operators, which `fixed_order` replaces.

    Told to be deterministic, torch would write them out as lookups, which take several times the memory.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (F.interpolate, F.pad) or (args[0] if args else kwargs["input"]).ndim != 4:
            return func(*args, **kwargs)
        torch.use_deterministic_algorithms(False)
        try:
            return func(*args, **kwargs)
        finally:
            torch.use_deterministic_algorithms(True)

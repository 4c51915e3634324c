"""`in_first_process`: work of the first of several processes, whose result or failure all of them learn."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class _Trainer(Protocol):
    """Lightning's Trainer, as far as it is needed here."""

    @property
    def is_global_zero(self) -> bool: ...

    @property
    def strategy(self) -> Any: ...


def in_first_process(trainer: _Trainer, work: Callable[[], Result]) -> Result:
    """Do work in the first process of a run while the others wait; all processes must call this at the same point.

    An error in the first process alone would leave the others waiting for it, up to the time-out of hours. So they are
    told of it, and all stop at once.

    Args:
        trainer: the `Trainer` of the run.
        work: what is done; it must not talk to the other processes (`trainer.log_dir` does).

    Returns:
        In every process what `work` returned in the first, which must be picklable.

    Raises:
        Exception: in every process the error of `work`; a `RuntimeError` with its words in the others if it cannot be
            sent as it is.

    Example:
        >>> from types import SimpleNamespace
        >>> alone = SimpleNamespace(is_global_zero=True, strategy=SimpleNamespace(broadcast=lambda one: one))
        >>> in_first_process(alone, lambda: 6 * 7)
        42
    """
    result: Result | None = None
    problem: Exception | None = None
    if trainer.is_global_zero:
        try:
            result = work()
        except Exception as error:
            problem = error
    told = trainer.strategy.broadcast((result, None if problem is None else _sendable(problem)))
    if problem is not None:
        raise problem  # as it is, with where it came from
    result, problem = told
    if problem is not None:
        raise problem
    return result  # type: ignore[return-value]  # the first process has set it


def _sendable(error: Exception) -> Exception:
    """The error, or one with its words if another process would not get it as it is.

    Example:
        >>> class Own(Exception):
        ...     def __init__(self, file): super().__init__(f"no file {file}")
        >>> _sendable(Own("a.png")), _sendable(ValueError("b"))
        (RuntimeError('Own: no file a.png'), ValueError('b'))
    """
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # whatever a class of the user does when it is copied
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")

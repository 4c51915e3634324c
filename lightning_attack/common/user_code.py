"""Where an error comes from, if it comes from code of the user: the file and line that the user can mend."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_NOT_THE_USERS = (_PACKAGE, *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")))


def place_in_user_code(error: BaseException) -> str | None:
    """The innermost `FILE:LINE` of an error's traceback outside of this package, Python and installed packages.

    None if the error does not pass through such code.
    """
    found = error_of_user_code(error)
    return found and found[0]


def error_of_user_code(error: BaseException) -> tuple[str, BaseException] | None:
    """The same place, and the error that was raised there; it may be the cause of the one given."""
    for cause in _causes(error):
        if isinstance(cause, SyntaxError) and cause.filename and is_users(cause.filename):
            return f"{cause.filename}:{cause.lineno}", cause
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if is_users(frame.filename):
                return f"{frame.filename}:{frame.lineno}", cause
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from, the first of them first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return reversed(chain)


def is_users(filename: str) -> bool:
    """Whether a file of Python is the user's: neither of this package nor of Python or an installed package."""
    return filename.endswith(".py") and _is_outside(os.path.abspath(filename)) and Path(filename).is_file()


@cache
def _is_outside(file: str) -> bool:
    """Whether a file is in none of the folders; each is looked at once, for that asks the disk."""
    return not any(Path(file).resolve().is_relative_to(folder) for folder in _NOT_THE_USERS)

"""`expanded`: a path as the user wrote it, where no shell has replaced `~` and variables."""

from __future__ import annotations

from os.path import expanduser, expandvars


def expanded(path: str) -> str:
    """The path with `~` and the environment's variables replaced; those that are not set stay as they are.

    A shell does it for words of their own, but neither inside `--results=~/runs` nor in a file of YAML.

    Example:
        >>> expanded("$NO_SUCH_VARIABLE/runs")
        '$NO_SUCH_VARIABLE/runs'
    """
    return expanduser(expandvars(path))

"""`command.txt`: how a run was started, to be typed again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.names import COMMAND


def note_command(folder: Path, words: Sequence[str]) -> None:
    """Add a line to `command.txt` in a run's folder."""
    text = "".join(f"{line}\n" for line in (*read_commands(folder), one_line(words)))
    with atomic_write(folder / COMMAND) as path:
        path.write_text(text, "utf-8", "backslashreplace")


def read_commands(folder: Path) -> list[str]:
    """The lines of a run's `command.txt`, one for each start; none where there is no such file."""
    path = folder / COMMAND
    return path.read_text("utf-8").removesuffix("\n").split("\n") if path.exists() else []


def one_line(words: Sequence[str]) -> str:
    r"""The words as a line for bash, also if there are lines in a word.

    Example:
        >>> print(one_line(["python", "main.py", "--run_name=my run", "--model.attack=a:\n  b"]))
        python main.py '--run_name=my run' $'--model.attack=a:\n  b'
    """
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if not {"\n", "\r"} & set(word):
        return shlex.quote(word)
    escaped = word.replace("\\", r"\\").replace("'", r"\'").replace("\r", r"\r").replace("\n", r"\n")
    return f"$'{escaped}'"

"""How this program was started, for usage lines and for commands to be typed again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

SCRIPT = "lightning-attack"
"""The console script that an installation brings."""


def program_words(started: str | None = None) -> list[str]:
    """The words before the command, as the user would type them.

    Args:
        started: `sys.argv[0]`, which is the default.

    Example:
        >>> program_words("main.py"), program_words("/usr/bin/lightning-attack")
        (['python', 'main.py'], ['lightning-attack'])
        >>> program_words("/somewhere/lightning_attack/__main__.py")
        ['python', '-m', 'lightning_attack']
    """
    path = Path(sys.argv[0] if started is None else started)
    if path.name == "__main__.py":
        modules = {"lightning_attack": "lightning_attack", "cli": "lightning_attack.cli"}
        module = modules.get(path.parent.name)
        return ["python", "-m", module] if module else [SCRIPT]
    return ["python", str(path)] if path.suffix == ".py" else [SCRIPT]


def program() -> str:
    """The words before the command in one string, such as `python main.py`."""
    return shlex.join(program_words())

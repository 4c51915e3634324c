"""The front door: the first word chooses the command, and only what this command needs is imported.

Torch and Lightning take seconds to import, so this file imports neither: `--help`, `--version` and a mistyped command
answer at once.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_attack import __version__
from lightning_attack.cli.commands import ABOUT, COMMANDS
from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.launch import LaunchError, check_environment, check_numbers, launcher
from lightning_attack.cli.program import SCRIPT, program
from lightning_attack.cli.translate import translated
from lightning_attack.common.configs import attack_names

_MEANT = {"attack": "predict", "run": "predict", "train": "fit", "eval": "validate", "evaluate": "validate",
          "compare": "report"}  # fmt: skip
"""Commands of other programs, and what they are called here."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the words after the program's name; None = those that this process was started with.

    Returns:
        The exit code: 0 = done, 2 = a mistake in what was asked for, 3 = done, except for what `on_error: skip` left
        out, 128 + n = stopped by signal n.
    """
    words = list(sys.argv[1:] if args is None else args)
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for networks and attacks in files of the user; a console script does not look there
    _silence_libraries()
    try:
        return _run(words)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)  # from every process: which is the first is what is in doubt
    except KeyboardInterrupt:  # before a run takes signals itself, or between two of them
        return 130
    except SystemExit as error:
        if (number := _signal_of(error)) is None:
            raise
        _say("stopped by a signal; --ckpt_path=FILE goes on from a checkpoint, which Lightning writes after each epoch")
        return 128 + number
    except Exception as error:
        said = translated(error)
        if said is None:
            raise
        _say(said)
    return 2


def _run(words: list[str]) -> int:
    first = words[0] if words else ""
    if first in ("-h", "--help"):
        print(_help())
        raise SystemExit(0)
    if first == "--version":
        print(f"{SCRIPT} {__version__}")
        raise SystemExit(0)
    if first not in COMMANDS:
        raise UsageError(_unknown(first))
    check_numbers()
    if COMMANDS[first].runs and not {"-h", "--help", "--compare"} & {*words}:
        check_environment()
    return _imported(f"lightning_attack.cli.{COMMANDS[first].module}").run(_apart(words))


def _apart(words: list[str]) -> list[str]:
    """The words, with `-cFILE` as the two that the rest of the program looks for.

    Example:
        >>> _apart(["predict", "-crun.yaml", "-c=run.yaml"])
        ['predict', '-c', 'run.yaml', '-c=run.yaml']
    """
    joined = (re.fullmatch(r"(-c)([^=].*)", word, re.DOTALL) for word in words)
    return [part for word, match in zip(words, joined, strict=True) for part in (match.groups() if match else [word])]


def _help() -> str:
    commands = "\n".join(f"    {name:<10}{command.does}" for name, command in COMMANDS.items())
    return (
        f"usage: {program()} COMMAND [OPTION ...]\n\n{ABOUT}\n\n"
        f"commands:\n{commands}\n\n"
        "options:\n    -h, --help  this text; after a command: its options\n    --version   the version\n\n"
        f"`{program()} predict` with nothing more attacks an embedded network on drawn scenes; it takes a minute."
    )


def _unknown(word: str) -> str:
    known = f"known: {', '.join(COMMANDS)}"
    if not word:
        return f"no command is given\n{known}; `{program()} --help` says what each does"
    if word.startswith("-"):
        return f"the command comes first, such as `{program()} predict {word}`\n{known}"
    if word.lower() in attack_names():
        return f"'{word}' is an attack, not a command\n{program()} predict --model.attack={word.lower()}"
    if Path(word).suffix in (".yaml", ".yml"):
        return f"the command comes first\n{program()} predict -c {word} (or fit, study, ...)"
    meant = [_MEANT[word.lower()]] if word.lower() in _MEANT else get_close_matches(word.lower(), COMMANDS, n=2)
    hint = f"did you mean {' or '.join(meant)}? " if meant else ""
    return f"there is no command '{word}'\n{hint}{known}"


def _signal_of(error: SystemExit) -> int | None:
    """The signal for which Lightning ends a training, with exit code 0 or 1; None: it is another end.

    Example:
        >>> _signal_of(SystemExit(2))
    """
    if type(error).__name__ == "SIGTERMException":
        return signal.SIGTERM
    return signal.SIGINT if isinstance(error.__context__, KeyboardInterrupt) else None


def _say(text: str) -> None:
    # Of several processes each comes to know it; one says it. A rank that no launcher gave may be left over.
    ranks = sys.modules.get("lightning_utilities.core.rank_zero")
    if launcher() is None or not getattr(getattr(ranks, "rank_zero_only", None), "rank", 0):
        print(f"error: {text}", file=sys.stderr)


def _imported(name: str) -> Any:
    """A module, imported without looking for garbage among the million objects that torch and Lightning make.

    They are there to stay. The search among them costs half a second here, and a second and a half at the end.
    """
    if name in sys.modules:
        return sys.modules[name]
    gc.collect()  # what is garbage by now shall not stay
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _silence_libraries() -> None:
    """Drop messages of libraries that tell the user of this program nothing."""
    for library in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{library}.utilities.rank_zero").setLevel(logging.WARNING)
        logging.getLogger(f"lightning.{library}.utilities.seed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # A run that is resumed may have nothing left to attack.
    warnings.filterwarnings("ignore", message=".*Total length of `DataLoader` across ranks is zero.*")
    # The command line is always handed over as a list.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    # Lightning 2.6 on torch 2.14.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")

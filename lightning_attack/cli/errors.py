"""Turn the parser's messages into two lines: what is wrong, and what is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from lightning_attack.common.errors import UserError

Part = type | str


class UsageError(UserError):
    """Something on the command line or in a configuration cannot work."""


def explain(message: str, options: Iterable[str], parts: Mapping[str, Sequence[Part]]) -> str:
    """What is wrong in one line and, for a misspelt name, what is known in a second one.

    Args:
        message: the parser's own, often of many lines.
        options: all option names of the command, such as `model.attack`, or of the class that the message is about.
        parts: for the last word of a key, such as `attack`, the classes and files that may stand there.

    Example:
        >>> print(explain("unrecognized arguments: --data.limt=3", ["data.limit", "data.size"], {}))
        there is no option 'data.limt'
        did you mean data.limit? known: data.limit, data.size
    """
    if match := re.search(r"there is no [^\n]+\n *(?:did you mean|known:)[^\n]+", message):
        # Explained already, by the parser of a class inside this one.
        return re.sub(r"\n *", "\n", match[0])
    text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(message.split()))
    if match := re.search(r"--([\w.]+)\.help: .*?([\w.]+)\"?(?: is not a .+)?$", text):
        names = [part.__name__ for part in parts.get(match[1].rpartition(".")[2], ()) if isinstance(part, type)]
        what = f"--{match[1]}.help: '{match[2]}' is no class with options of its own"
        presets = "; those of presets: python -m pydoc lightning_attack.attacks.presets"
        return _known(what + presets * match[1].endswith("attack"), match[2], names)
    key = next(iter(re.findall(r'Parser key "([\w.]+)"', text)), "")
    if match := re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", text):
        wrong = match[1] or match[2]
        if wrong.startswith(("class_path", "init_args")):
            return (
                f"this file describes one part ({wrong}), not a run\ngive it to its option, such as --model.attack=FILE"
            )
        beside = [option for option in options if option.rpartition(".")[0] == wrong.rpartition(".")[0]]
        return _known(f"there is no option '{wrong}'", wrong, beside)
    if match := re.search(r"Option '([\w.]+)' is not accepted", text):
        return _known(f"there is no option '{match[1]}'", match[1], [name for name in options if "." not in name])
    if match := re.search(r"(?:dot import path string: |import path format: |given class_path ')([^\s']+)", text):
        kind = next((word for word in reversed(key.split(".")) if word in parts), None)
        if kind:
            names = [part if isinstance(part, str) else part.__name__ for part in parts[kind]]
            if match[1].endswith(".yaml"):
                what = f"{key}: there is no file '{match[1]}' in '{Path.cwd()}'"
                return _known(what, match[1], [name for name in names if name.endswith(".yaml")])
            return _known(f"{key}: there is no '{match[1]}'", match[1], names)
    if match := re.search(r"Errors: - (.+?) - Expected a NoneType", text):
        value = re.search(r"Given value: (.+)$", text)
        given = f"; given: {value[1]}" if value and len(value[1]) < 60 else ""
        return f"{key}: {match[1]}{given}".removeprefix(": ")
    return f"{key}: {text.partition(': ')[2]}" if key else text


def _known(what: str, wrong: str, names: Iterable[str]) -> str:
    names = sorted({name.rstrip("+") for name in names} - {"help"})
    if not names:
        return what
    # People write "pdg" or "configs/attacks/pdg.yaml" for "lightning_attack.attacks.pgd": compare the last words.
    short = {re.split(r"[./]", name.removesuffix(".yaml"))[-1].lower(): name for name in names}
    word = re.split(r"[./]", wrong.removesuffix(".yaml"))[-1].lower()
    close = [short[match] for match in get_close_matches(word, short, n=2)]
    return f"{what}\n" + (f"did you mean {' or '.join(close)}? " if close else "") + f"known: {', '.join(names)}"

"""A mistake as the parser tells it, and how names are offered in answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

Part = type | str
_MANY = 24
"""More names than these are not listed."""


@dataclass(frozen=True)
class Mistake:
    """A message of the parser, taken apart.

    Attributes:
        message: as it is.
        text: in one line.
        key: of the configuration, such as `model.attack`, where the message names one.
        options: all options of the command, without dashes.
        parts: for the last word of a key, such as `attack`, the classes and names that may stand there.
    """

    message: str
    text: str
    key: str
    options: Sequence[str]
    parts: Mapping[str, Sequence[Part]]


def known(what: str, wrong: str, names: Iterable[str], more: str = "") -> str:
    """What is wrong, and the names that are known: of many the closest, and where all of them are."""
    known = sorted({name.rstrip("+") for name in names} - {"help"})
    if not known:
        return what
    # People write "pdg" or "configs/attacks/pdg.yaml" for "lightning_attack.attacks.pgd": compare the last words.
    short = {_last_word(name): name for name in known}
    many = len(known) > _MANY
    close = [short[match] for match in get_close_matches(_last_word(wrong), short, n=5 if many else 2)]
    hint = f"did you mean {either(close)}? " if close else ""
    listed = (more or f"there are {len(known)}") if many else f"known: {', '.join(known)}"
    return f"{what}\n{hint}{listed}"


def _last_word(name: str) -> str:
    return re.split(r"[./]", re.sub(r"\.ya?ml$", "", name))[-1].lower()


def beside(path: Path) -> str:
    """A second line with the files of the same folder that have a similar name; empty if none has."""
    try:
        names = [file.name for file in path.absolute().parent.iterdir() if file.is_file()]
    except (OSError, ValueError):
        return ""
    close = get_close_matches(path.name, names, n=3, cutoff=0.75)
    here = path.absolute().parent == Path.cwd()
    return f"\ndid you mean {either([name if here else str(path.parent / name) for name in close])}?" if close else ""


def either(names: Sequence[str]) -> str:
    """Names as one reads them: `a`, `a or b`, `a, b or c`."""
    return " or ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])

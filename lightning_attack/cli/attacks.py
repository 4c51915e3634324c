"""The command `attacks`: all attacks that come with the package, a line each, from their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

from lightning_attack.attacks import PRESETS, Attack
from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.mistake import either
from lightning_attack.cli.program import program
from lightning_attack.predict.passes import backward_passes

_KINDS = {
    "white_box": "objective",
    "features": "objective",
    "gradients": "transfer",
    "steps": "transfer",
    "views": "transfer",
    "paths": "transfer",
    "combined": "transfer",
    "source": "transfer",
    "transegpgd": "TranSegPGD",
    "own": "own loop",
    "ensembles": "own loop",
}
"""The modules of presets, and what their attacks have in common."""

_ASIDES = re.compile(
    r",? see (?:`[^`]*`(?:, | and )?)+| \(`[^)]*`\)|; (?:the other arguments|the others) are those of .*"
)
"""What docstrings say beside the matter: where to read on."""

_STEPS = 4


class About(NamedTuple):
    """What one line says of an attack."""

    name: str
    year: str
    """Of the paper: of its number at arXiv, else as the docstring's source has it; empty for our own combinations."""
    kind: str
    """What it adds to PGD: another objective, means of transfer, the two stages of TranSegPGD, or a loop of its own."""
    passes: str
    """Backward passes a step, where PGD has 1, and after a + those before the steps; `?`: the network decides."""
    does: str
    """The first sentences of the docstring."""


def run(words: list[str]) -> int:
    """Run `attacks [WORD ...]`: list the attacks whose lines have all of these words; returns the exit code."""
    wanted = [word.lower() for word in words[1:]]
    if {"-h", "--help"} & {*wanted}:
        print(f"usage: {program()} attacks [WORD ...]\n\nList all attacks, or those whose lines have all of the words.")
        return 0
    if wrong := [word for word in wanted if word.startswith("-")]:
        raise UsageError(f"there is no option '{wrong[0]}'\n{program()} attacks [WORD ...] lists attacks by words")
    found = [about for about in map(describe, PRESETS) if all(word in " ".join(about).lower() for word in wanted)]
    if not found:
        hint = _meant(wanted)
        raise UsageError(f"no attack has {' and '.join(wanted)} in its line\n{hint}`{program()} attacks` lists all")
    table = [About("attack", "year", "kind", "passes", ""), *found]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "\npasses: backward passes a step, which are what an attack costs; PGD has 1. After a +: those before\n"
        "kind: what it adds to PGD\n"
        f"run one: {program()} predict --model.attack=NAME; its settings: configs/attacks/NAME.yaml"
    )
    return 0


def _meant(wanted: list[str]) -> str:
    """Words of the lines that are written like words that no line has."""
    lines = [" ".join(describe(preset)).lower() for preset in PRESETS]
    words = {word for line in lines for word in re.findall(r"[a-z]\w{2,}(?:-\w+)*", line)}
    missing = [word for word in wanted if not any(word in line for line in lines)]
    close = dict.fromkeys(one for word in missing for one in get_close_matches(word, words, n=3))
    return f"did you mean {either([*close])}? " if close else ""


@cache
def describe(preset: Callable[..., Attack]) -> About:
    """The line of a preset.

    Example:
        >>> from lightning_attack.attacks import vmi_fgsm
        >>> describe(vmi_fgsm)[:4]
        ('vmi_fgsm', '2021', 'transfer', '21')
    """
    text = inspect.getdoc(preset) or ""
    first, source = text.partition("\n\n")[0], text.partition("Source:")[2]
    arxiv = re.search(r"arXiv (\d\d)\d\d\.\d+", source)
    year = f"20{arxiv[1]}" if arxiv else next(iter(re.findall(r"\b20\d\d\b", source)), "")
    return About(
        preset.__name__,
        "" if source.startswith(" ours") else year,
        _KINDS[preset.__module__.rpartition(".")[2]],
        _passes(preset),
        re.sub(_ASIDES, "", " ".join(first.split())).rstrip("."),
    )


def _passes(preset: Callable[..., Attack]) -> str:
    """Backward passes of a preset: those of a step, and if there are any those before the first one."""
    attack = preset(steps=_STEPS)
    passes = backward_passes(attack, members=1)
    if passes is None:
        return "?"
    if not getattr(getattr(attack, "objective", None), "prepares", False):
        return f"{passes / _STEPS:g}"
    one = backward_passes(preset(steps=_STEPS + 1), members=1) or 0.0
    return f"{one - passes:g} + {passes - _STEPS * (one - passes):g}"

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
from lightning_attack.predict.passes import Passes, all_passes

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
    kept = [preset for preset in PRESETS if all(word in " ".join(describe(preset)).lower() for word in wanted)]
    found = [describe(preset) for preset in kept]
    if not found:
        hint = _meant(wanted)
        raise UsageError(f"no attack has {' and '.join(wanted)} in its line\n{hint}`{program()} attacks` lists all")
    table = [About("attack", "year", "kind", "passes", ""), *found]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "\npasses: backward passes a step, which are what an attack costs; PGD has 1. After a +: those before\n"
        f"{_forward_note(kept)}"
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
    passes = _counted(preset, _STEPS, members=1)
    if passes is None:
        return "?"
    if not getattr(getattr(attack, "objective", None), "prepares", False):
        return f"{passes.backward / _STEPS:g}"
    more = _counted(preset, _STEPS + 1, members=1) or passes
    one = more.backward - passes.backward
    return f"{one:g} + {passes.backward - _STEPS * one:g}"


@cache
def _counted(preset: Callable[..., Attack], steps: int, members: int) -> Passes | None:
    return all_passes(preset(steps=steps), members)


def forward_passes_more(preset: Callable[..., Attack]) -> int:
    """How many more forward than backward passes a preset takes in each step; an attack on ensembles on two members.

    Example:
        >>> from lightning_attack.attacks import cfm, mi_fgsm
        >>> forward_passes_more(cfm), forward_passes_more(mi_fgsm)
        (1, 0)
    """
    members = 2 if preset().needs_members else 1
    passes = _counted(preset, _STEPS, members)
    # The few before the first step, such as that of the clean images, are not as many as there are steps.
    return 0 if passes is None else max(0, int(passes.forward - passes.backward) // _STEPS)


def _forward_note(presets: list[Callable[..., Attack]]) -> str:
    """Which of the presets take more forward passes than backward ones; empty if none does."""
    names: dict[str, list[str]] = {}
    for preset in presets:
        if more := forward_passes_more(preset):
            kind = f"{more} more a step" + (", with two members" if preset().needs_members else "")
            names.setdefault(kind, []).append(preset.__name__)
    said = "; ".join(f"{', '.join(found)} ({kind})" for kind, found in names.items())
    return f"forward passes: one for each backward pass; {said}\n" if said else ""

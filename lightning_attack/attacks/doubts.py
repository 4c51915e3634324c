"""`doubts`: settings of an attack that can be run and are hardly meant."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_attack.attacks.base import Attack
from lightning_attack.attacks.loops.iterative import IterativeAttack
from lightning_attack.attacks.norms import Linf, Norm
from lightning_attack.attacks.wrappers.start_from import StartFrom
from lightning_attack.common.pixels import LEVELS, in_levels

_USUAL = 32
"""Levels of 8-bit images: papers hardly ever attack with a larger L-inf radius."""


def doubts(attack: Attack, quantize: bool) -> list[str]:
    """What is strange about an attack and the attacks inside of it, a sentence each.

    Args:
        attack: the attack.
        quantize: whether its images are rounded to 8 bits.

    Example:
        >>> from lightning_attack.attacks import pgd
        >>> doubts(pgd(), True)
        []
        >>> doubts(pgd(eps="4/255", step_size="8/255"), True)[0][:60]
        'pgd: step_size=8/255 is longer than eps=4/255, so every step'
        >>> doubts(pgd(eps="0.4/255", step_size="0.1/255"), True)[0][:60]
        'pgd: eps=0.4/255 is less than half a level of 8-bit images, '
        >>> doubts(pgd(eps=0.8, step_size=0.2), True)[0][:60]
        'pgd: eps=204/255 in L-inf changes photos beyond recognition '
    """
    parts = _attacks(attack)
    return list(dict.fromkeys(doubt for part, started in parts for doubt in _doubts(part, quantize, started)))


def _attacks(attack: Attack, started: bool = False) -> Iterator[tuple[Attack, bool]]:
    """The attack and those inside of it, and whether they are started from by `StartFrom`."""
    yield attack, started
    for value in vars(attack).values():
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, Attack):
                yield from _attacks(inner, isinstance(attack, StartFrom))


def _doubts(attack: Attack, quantize: bool, started: bool) -> Iterator[str]:
    """Doubts about one attack; `started`: it begins at another point than the image."""
    norm = getattr(attack, "norm", None)
    if not isinstance(norm, Norm):
        return
    pixels = isinstance(norm, Linf)
    shown = in_levels if pixels else "{:.4g}".format
    eps = shown(norm.eps)
    if pixels and norm.eps * LEVELS > _USUAL + 1e-6:
        yield (
            f"{attack.name}: eps={eps} in L-inf changes photos beyond recognition or nearly so, and figures for it say "
            f"little about a network; 4/255 to 16/255 are usual (8/255 in most papers), above {_USUAL}/255 hardly any"
        )
    if pixels and quantize and norm.eps * LEVELS < 0.5:
        yield (
            f"{attack.name}: eps={eps} is less than half a level of 8-bit images, so rounding takes the whole "
            "perturbation away; raise eps, or set model.quantize=false"
        )
    if type(attack) is not IterativeAttack:  # steps of others have another meaning
        return
    step = shown(attack.step_size)
    if attack.step_size > norm.eps * (1 + 1e-6) and attack.steps > 1:
        yield (
            f"{attack.name}: step_size={step} is longer than eps={eps}, so every step reaches the border and the "
            "attack sees corners of its ball only; a quarter of eps is usual"
        )
    reach = attack.steps * attack.step_size
    if reach < norm.eps * (1 - 1e-6) and not attack.random_start and attack.finish is None and not started:
        yield (
            f"{attack.name}: {attack.steps} steps of {step} reach {shown(reach)}, less than eps={eps}; "
            "give more steps or longer ones, or the budget that is meant"
        )

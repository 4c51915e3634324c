"""What attacks, networks and classes are called in a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run


@dataclass(frozen=True)
class Display:
    """Names as somebody wants to read them; others stay.

    A label of a run begins with its attack, whose name is replaced there too.

    Example:
        >>> display = Display({"pgd": "PGD", "net": "FPN"})
        >>> display("pgd steps=10"), display("net"), display("net_2")
        ('PGD steps=10', 'FPN', 'net_2')
    """

    texts: dict[str, str]

    @classmethod
    def of(cls, names: Sequence[str], runs: Sequence[Run]) -> Display:
        """From `NAME=TEXT`, where the runs have an attack, network or class of each name.

        Raises:
            RunsError: they have not, or it is not written so.
        """
        attacks, networks = ({name for run in runs for name in some(run)} for some in (_attack, _networks))
        known = [*sorted(attacks), *sorted(networks), *dict.fromkeys(name for run in runs for name in run.classes)]
        texts = {}
        for one in names:
            name, sign, text = one.partition("=")
            if not sign or not text:
                raise RunsError(f"--names: '{one}' is no NAME=TEXT\nsuch as {known[0]}={known[0].upper()}")
            if name not in known:
                raise RunsError(
                    f"--names: no attack, network or class of the runs is called '{name}'\nknown: {', '.join(known)}"
                )
            texts[name] = text
        return cls(texts)

    def __call__(self, text: str) -> str:
        if text in self.texts:
            return self.texts[text]
        first, space, rest = text.partition(" ")
        return f"{self.texts.get(first, first)}{space}{rest}"


def _attack(run: Run) -> list[str]:
    return [run.attack]


def _networks(run: Run) -> list[str]:
    return [run.source, *run.targets]

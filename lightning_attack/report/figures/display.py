"""What attacks, networks, data sets and classes are called in figures, pages and papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_attack.report.facts import data_text
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run


@dataclass(frozen=True)
class Display:
    """Names as somebody wants to read them; others stay.

    Example:
        >>> display = Display({"net": "FPN"})
        >>> display("net"), display("net_2")
        ('FPN', 'net_2')
    """

    texts: dict[str, str]

    @classmethod
    def of(cls, names: Sequence[str], runs: Sequence[Run]) -> Display:
        """From `NAME=TEXT`, where the runs have an attack, network, data set or class of each name.

        Raises:
            RunsError: they have not, or it is not written so.
        """
        attacks, networks = ({name for run in runs for name in some(run)} for some in (_attack, _networks))
        datasets = {str(run.summary["data"]["dataset"]) for run in runs if data_text(run)}
        classes = dict.fromkeys(name for run in runs for name in run.classes)
        known = [*sorted(attacks), *sorted(networks), *sorted(datasets), *classes]
        texts = {}
        for one in names:
            name, sign, text = one.partition("=")
            if not sign or not text:
                raise RunsError(f"--names: '{one}' is no NAME=TEXT\nsuch as {known[0]}={known[0].upper()}")
            if name not in known:
                raise RunsError(
                    f"--names: no attack, network, data set or class of the runs is called '{name}'\n"
                    f"known: {', '.join(known)}"
                )
            texts[name] = text
        return cls(texts)

    def __call__(self, name: str) -> str:
        """What a network, data set or class is called."""
        return self.texts.get(name, name)

    def attack(self, run: Run) -> str:
        """What the attack of a run is called: as somebody wants it, or else as its own run says."""
        return self.texts.get(run.attack, run.display_name)


def _attack(run: Run) -> list[str]:
    return [run.attack]


def _networks(run: Run) -> list[str]:
    return [run.source, *run.targets]

"""Names of rows in papers: what papers call the attack, and settings only where the section does not say them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_attack.report.row_names import (
    MANY,
    Called,
    differing,
    ending,
    norm_balls,
    setting_words,
    settings_of,
    short_folders,
)
from lightning_attack.report.sheet import Section
from lightning_attack.runs.folder import Run

_BUDGET = (".norm.eps", ".norm.class", ".settings.eps")


@dataclass(frozen=True)
class PaperName:
    """The name of a row.

    Attributes:
        attack: what papers call the attack.
        details: what tells the row from others of its section: settings, seeds, a folder; mostly empty.
    """

    attack: str
    details: str

    def __str__(self) -> str:
        return f"{self.attack}, {self.details}" if self.details else self.attack


def paper_names(sections: Sequence[Section], called: Called) -> list[list[PaperName]]:
    """A name for each row of each section, that no other row of its section has.

    A setting is named where it differs between runs of an attack. The radius is not, and neither is what grows with it
    (such as steps of eps / 10): a section has one budget, which stands above it.

    Args:
        sections: of one table.
        called: what the attacks are called.
    """
    entries = [row.entry for section in sections for row in section.rows]
    runs = [entry.first for entry in entries]
    seeds = {len(entry.runs) for entry in entries}
    without = ["seed"] if max(seeds, default=1) > 1 else []
    settings = [settings_of(run, without) for run in runs]
    places = short_folders(runs) if runs else []
    known = {}
    for attack in dict.fromkeys(map(called, runs)):
        own = [place for place, run in enumerate(runs) if called(run) == attack]
        names = differing([settings[place] for place in own])
        radii = [_radius(runs[place]) for place in own]
        known[attack] = {
            key: name
            for key, name in names.items()
            if not key.endswith(_BUDGET) and not _grows([settings[place].get(key) for place in own], radii)
        }
    named: list[list[PaperName]] = []
    start = 0
    for section in sections:
        here = range(start, start + len(section.rows))
        start += len(section.rows)
        found = [_details(known[called(runs[place])], settings[place]) for place in here]
        counts = Counter((called(runs[place]), one) for place, one in zip(here, found, strict=True))
        named.append([])
        for place, words in zip(here, found, strict=True):
            alone = words is not None and counts[called(runs[place]), words] == 1
            count = len(entries[place].runs)
            parts = [words or "", "" if alone else f"[{places[place]}]"]
            parts += [f"mean of {count} seeds" if count > 1 and len(seeds) > 1 else "", ending(runs[place]).strip()]
            named[-1].append(PaperName(called(runs[place]), ", ".join(part for part in parts if part)))
    return named


def _details(names: Mapping[str, str], settings: Mapping[str, Any]) -> str | None:
    """The settings as words; None where they are too many to read."""
    words = list(setting_words(names, settings))
    return ", ".join(words) if len(words) <= MANY else None


def _radius(run: Run) -> float | None:
    radii = [float(eps) for _, eps in norm_balls(run) if eps is not None]
    return radii[0] if len(radii) == 1 else None


def _grows(values: Sequence[Any], radii: Sequence[float | None]) -> bool:
    """Whether the values of a setting are everywhere the same multiple of the radius."""
    ratios = [
        value / radius
        for value, radius in zip(values, radii, strict=True)
        if isinstance(value, float) and radius and math.isfinite(value)
    ]
    return len(ratios) == len(values) and all(math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios)

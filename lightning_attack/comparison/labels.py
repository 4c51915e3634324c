"""What rows are called: the name of the attack and what sets it apart, in few words."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_attack.comparison.runs import Run

_MODEL = ("target_labels", "exact", "engine", "precision")
_MANY = 4
NO_RADIUS = "no radius"


def budget(run: Run) -> str:
    """The ball that a run's attack stays in, such as `L-inf 8/255`; attacks without one have `no radius`.

    Images that were made elsewhere have the budget that they were checked against. What a `Peer` stays in is its own
    affair; its `eps` is said if it has one.
    """
    attack = run.report["settings"]["attack"]
    if attack.get("class") == "Peer":
        eps = attack.get("settings", {}).get("eps")
        return "peer" if eps is None else f"peer, eps {_number(eps, levels=True)}"
    return " + ".join(sorted(_ball(*ball) for ball in balls(run))) or NO_RADIUS


def balls(run: Run) -> set[tuple[str | None, Any]]:
    """Norms and radii of the budget, such as `("Linf", 0.0314)`; none for attacks without one.

    Example:
        >>> balls(Run(Path(), {}, (), {"data": {"adversarial_eps": "51/255"}}))
        {('Linf', 0.2)}
    """
    given = run.settings.get("data", {}).get("adversarial_eps")
    if given is not None:
        numerator, _, denominator = str(given).partition("/")
        return {("Linf", float(numerator) / float(denominator or 1))}
    attack = run.report.get("settings", {}).get("attack")
    return {(norm.get("class"), norm.get("eps")) for norm in _norms(attack)}


def labels(runs: Sequence[Run], without: str = "") -> list[str]:
    """A name for each run: of its attack and, among runs of one attack, of the settings that are not the same in all.

    Runs that no setting tells apart have their folder in the name.

    Args:
        runs: to be told apart.
        without: a setting that is not named, such as `seed`.
    """
    by_attack = defaultdict(list)
    for run in runs:
        by_attack[run.attack].append(run)
    names = {}
    for attack, alike in by_attack.items():
        for run, words in zip(alike, _differences(alike, without), strict=True):
            names[run.folder] = f"{attack} {', '.join(words)}".strip() if len(words) <= _MANY else ""
    counts = Counter(names.values())
    above = os.path.commonpath([run.folder.absolute().parent for run in runs])
    for run in runs:
        if not names[run.folder] or counts[names[run.folder]] > 1:
            place = Path(os.path.relpath(run.folder.absolute(), above)).as_posix()
            names[run.folder] = f"{names[run.folder] or run.attack} [{place}]"
    return [f"{names[run.folder]}{' (partial)' if run.partial else ''}" for run in runs]


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as keys with dots.

    Example:
        >>> dict(flat({"norm": {"eps": 0.5}, "parts": [{"class": "Momentum"}]}))
        {'norm.eps': 0.5, 'parts.0.class': 'Momentum'}
    """
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        items = list(enumerate(value))
    else:
        yield prefix, value
        return
    for key, inner in items:
        yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))


def siblings(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Runs that differ in nothing but their seed together; none has a seed twice."""
    families: list[list[Run]] = []
    for run in runs:
        for family in families:
            seeds = [one.report["settings"]["seed"] for one in family]
            alike = run.attack == family[0].attack and _settings(run, "seed") == _settings(family[0], "seed")
            if alike and run.partial == family[0].partial and run.report["settings"]["seed"] not in seeds:
                family.append(run)
                break
        else:
            families.append([run])
    return [tuple(family) for family in families]


def _differences(runs: Sequence[Run], without: str) -> list[list[str]]:
    """For each run the settings that are not the same in all, as short words."""
    settings = [_settings(run, without) for run in runs]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    differing = [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]
    parts = [key.removesuffix("class") for key in differing if key.endswith(".class")]
    # What another kind of part is set to is not named: its class is.
    differing = [key for key in differing if key.endswith(".class") or not key.startswith(tuple(parts))]
    short = Counter(key.rpartition(".")[2] for key in differing)
    words: list[list[str]] = [[] for _ in runs]
    for key in differing:
        name = key.rpartition(".")[2]
        if short[name] > 1:
            name = ".".join(key.split(".")[-2:])
        for row, one in zip(words, settings, strict=True):
            if key.endswith(".class"):
                row += [str(one[key])] if key in one else []
            elif one.get(key) not in (None, []):
                inside = one.get(key.removesuffix("eps") + "class", "Linf") if key.endswith("eps") else ""
                row.append(f"{name}={_number(one[key], inside == 'Linf')}")
    return words


def _settings(run: Run, without: str = "") -> dict[str, Any]:
    """What sets a run apart from others of its source."""
    settings = dict(flat(run.report["settings"]))
    model = run.settings.get("model", {})
    settings |= {key: model[key] for key in _MODEL if key in model}
    return {key: value for key, value in settings.items() if key != without}


def _norms(settings: Any) -> Iterator[Mapping[str, Any]]:
    """All norms that the settings of an attack name, at any depth."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            if key == "norm" and isinstance(value, Mapping):
                yield value
            else:
                yield from _norms(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _norms(value)


def _ball(kind: str | None, eps: Any) -> str:
    return f"{'L-inf' if kind == 'Linf' else kind} {_number(eps, kind == 'Linf')}"


def _number(value: Any, levels: bool = False) -> str:
    """A setting in few characters; with `levels` a whole or half number of 255ths as such."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    doubled = 2 * 255 * value
    if levels and abs(doubled - round(doubled)) < 1e-6:
        return f"{round(doubled) / 2:g}/255"
    return f"{value:.4g}"

"""Names of runs in tables and charts: the attack, and the settings in which it differs from other runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_attack.common.pixels import parse_pixels
from lightning_attack.runs.folder import Run
from lightning_attack.runs.settings import flat

_MODEL = ("target_labels", "exact", "engine", "precision")
MANY = 4
"""More settings than these are too many to read in a name."""
NO_RADIUS = "no radius"
Called = Callable[[Run], str]
"""What the attack of a run is called."""


def budget(run: Run) -> str:
    """Norm and radius that bound a run's perturbations, such as `L-inf 8/255`; `no radius` for attacks without.

    Images that were made elsewhere have the budget that they were checked against. A `Peer` keeps to a budget of its
    own; its `eps` is named if it has this setting.
    """
    attack = run.summary["settings"]["attack"]
    if attack.get("class") == "Peer":
        eps = attack.get("settings", {}).get("eps")
        return "peer" if eps is None else f"peer, eps {short_number(eps, levels=True)}"
    return " + ".join(sorted(_ball(*ball) for ball in norm_balls(run))) or NO_RADIUS


def norm_balls(run: Run) -> set[tuple[str | None, Any]]:
    """Norms and radii of the budget, such as `("Linf", 0.0314)`; none for attacks without one.

    Example:
        >>> norm_balls(Run(Path(), {}, (), {"data": {"adversarial_eps": "51/255"}}))
        {('Linf', 0.2)}
    """
    data = run.settings.get("data")  # anything, of a run from Python
    given = data.get("adversarial_eps") if isinstance(data, Mapping) else None
    if given is not None:
        return {("Linf", parse_pixels(given, "adversarial_eps"))}
    attack = run.summary.get("settings", {}).get("attack")
    return {(norm.get("class"), norm.get("eps")) for norm in _norms(attack)}


def own_name(run: Run) -> str:
    """The name of a run's attack."""
    return run.attack


def row_names(runs: Sequence[Run], without: Collection[str] = (), called: Called = own_name) -> list[str]:
    """A name for each run: its attack, and the settings in which it differs from other runs of the same attack.

    Where these do not tell runs of the same source apart, or are too many to read, the name has the run's folder.

    Args:
        runs: to be told apart.
        without: settings that are not named, such as `seed`.
        called: what the attacks are called.
    """
    words = _differences(runs, without, called)
    names = [_name(called(run), own) if len(own) <= MANY else "" for run, own in zip(runs, words, strict=True)]
    counts = Counter((name, run.source) for name, run in zip(names, runs, strict=True))
    return [
        (name if name and counts[name, run.source] == 1 else f"{name or called(run)} [{place}]") + ending(run)
        for name, run, place in zip(names, runs, short_folders(runs), strict=True)
    ]


def line_names(runs: Sequence[Run], without: Collection[str], called: Called = own_name) -> list[str]:
    """Like `row_names`, but without folders: runs that differ only in the settings `without` share a name.

    Example:
        >>> def run(**attack):
        ...     return Run(Path(), {"attack": "pgd", "source": "net", "settings": {"attack": attack}}, ())
        >>> line_names([run(steps=10, gamma=0.1), run(steps=20, gamma=0.1), run(steps=20, gamma=0.5)], ["steps"])
        ['pgd gamma=0.1', 'pgd gamma=0.1', 'pgd gamma=0.5']
    """
    words = _differences(runs, without, called)
    return [_name(called(run), own) + ending(run) for run, own in zip(runs, words, strict=True)]


def short_folders(runs: Sequence[Run]) -> list[str]:
    """The folders of the runs, relative to the innermost folder that holds all of them."""
    folders = [run.folder.resolve() for run in runs]
    above = os.path.commonpath([folder.parent for folder in folders])
    return [Path(os.path.relpath(folder, above)).as_posix() for folder in folders]


def siblings(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Runs grouped so that those of a group differ only in their seed; no group has a seed twice.

    Runs between which the user's own code was changed stand apart, though their settings are the same.
    """
    families: list[list[Run]] = []
    for run in runs:
        for family in families:
            seeds = [one.summary["settings"]["seed"] for one in family]
            alike = but_for_seed(run) == but_for_seed(family[0]) and user_code_of(run) == user_code_of(family[0])
            if alike and run.summary["settings"]["seed"] not in seeds:
                family.append(run)
                break
        else:
            families.append([run])
    return [tuple(family) for family in families]


def but_for_seed(run: Run) -> tuple[object, ...]:
    """All that names can say of a run but its seed: the attack, its settings and budget, and whether it was stopped."""
    return run.attack, settings_of(run, ["seed"]), norm_balls(run), run.partial


def user_code_of(run: Run) -> Any:
    """Hashes of the user's own code that a run was made with; None where it used none, or kept none."""
    model = run.settings.get("model")  # anything, of a run from Python
    return model.get("code") if isinstance(model, Mapping) else None


def _name(attack: str, words: Sequence[str]) -> str:
    return " ".join([attack, *[", ".join(words)] * bool(words)])


def ending(run: Run) -> str:
    """What a name ends with if the run was stopped."""
    return " (partial)" if run.partial else ""


def _differences(runs: Sequence[Run], without: Collection[str], called: Called) -> list[list[str]]:
    """For each run the settings that are not the same in all runs of its attack, as short words."""
    settings = [settings_of(run, without) for run in runs]
    known = {}
    for attack in {called(run) for run in runs}:
        known[attack] = differing([one for one, run in zip(settings, runs, strict=True) if called(run) == attack])
    return [[*setting_words(known[called(run)], one)] for run, one in zip(runs, settings, strict=True)]


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The keys whose values are not the same in all, with a short name for each.

    What another kind of part is set to is not named, for its class is; what differs between parts of one class is.

    Example:
        >>> parts = [{"of.class": "TI", "of.size": 3}, {"of.class": "DI", "of.p": 0.3}, {"of.class": "DI", "of.p": 0.9}]
        >>> differing(parts), differing(parts[:2])
        ({'of.class': 'class', 'of.p': 'p'}, {'of.class': 'class'})
    """
    keys = list(dict.fromkeys(key for one in settings for key in one))
    found = [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]
    classes = [key for key in found if key.endswith(".class")]

    def tells_apart(key: str) -> bool:
        above = [one for one in classes if key.startswith(one.removesuffix("class"))]
        values: dict[tuple[str, ...], set[str]] = {}
        for one in settings:
            values.setdefault(tuple(str(one.get(kind)) for kind in above), set()).add(str(one.get(key)))
        return any(len(alike) > 1 for alike in values.values())

    found = [key for key in found if key in classes or tells_apart(key)]
    short = Counter(_last(key) for key in found)
    return {key: _last(key) if short[_last(key)] == 1 else ".".join(key.split(".")[-2:]) for key in found}


def setting_words(names: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as short words; `names` are those that count, by key, as `differing` has them."""
    for key, name in names.items():
        if key.endswith(".class"):
            yield from [str(settings[key])] if key in settings else []
        elif settings.get(key) not in (None, []):
            inside = settings.get(key.removesuffix("eps") + "class", "Linf") if key.endswith("eps") else ""
            yield f"{name}={short_number(settings[key], inside == 'Linf')}"


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def settings_of(run: Run, without: Collection[str] = ()) -> dict[str, Any]:
    """What sets a run apart from others of its source."""
    settings = dict(flat(run.summary["settings"]))
    model = run.settings.get("model", {})
    settings |= {key: model[key] for key in _MODEL if key in model}
    return {key: value for key, value in settings.items() if _last(key) not in without}


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
    return f"{'L-inf' if kind == 'Linf' else kind} {short_number(eps, kind == 'Linf')}"


def short_number(value: Any, levels: bool = False) -> str:
    """A setting in few characters; with `levels`, whole and half multiples of 1/255 are written as such."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    doubled = 2 * 255 * value
    if levels and abs(doubled - round(doubled)) < 1e-6:
        return f"{round(doubled) / 2:g}/255"
    return f"{value:.4g}"

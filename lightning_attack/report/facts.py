"""Facts about a run in words and numbers: radius, steps, cost, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightning_attack.common.counted import counted
from lightning_attack.report.groups import group_runs
from lightning_attack.report.row_names import norm_balls, short_number
from lightning_attack.runs.folder import Run
from lightning_attack.runs.summary import MASKS
from lightning_attack.runs.summary_files import missing_words

_PACKAGES = ("lightning_attack", "torch", "lightning")


def radius(run: Run) -> tuple[str, float] | None:
    """Norm and radius of the budget: `("Linf", 0.0314)`; None for attacks without one, or with several."""
    found = [(str(norm), float(eps)) for norm, eps in norm_balls(run) if eps is not None]
    return found[0] if len(found) == 1 else None


def radius_text(run: Run) -> str | None:
    """The radius as people write it: `8/255` in L-inf, `1.5 (L2)` else.

    Example:
        >>> from pathlib import Path
        >>> norms = {"class": "Linf", "eps": 8 / 255}, {"class": "L2", "eps": 1.5}
        >>> [radius_text(Run(Path(), {"settings": {"attack": {"steps": 1, "norm": norm}}}, ())) for norm in norms]
        ['8/255', '1.5 (L2)']
    """
    found = radius(run)
    if found is None:
        return None
    norm, eps = found
    return short_number(eps, levels=True) if norm == "Linf" else f"{short_number(eps)} ({norm})"


def steps(run: Run) -> int | None:
    """Steps of the attack, of several attacks in a row their sum; None where it has none.

    Example:
        >>> from pathlib import Path
        >>> attack = {"class": "WorstCase", "attacks": [{"steps": 300}, {"steps": 200}]}
        >>> steps(Run(Path(), {"settings": {"attack": attack}}, ())), steps(Run(Path(), {}, ()))
        (500, None)
    """
    return _steps(run.summary.get("settings", {}).get("attack")) or None


def backward_passes(run: Run) -> float | None:
    """Backward passes of the source for each image."""
    return run.summary.get("passes_per_image", {}).get("backward")


def data_text(run: Run, called: Callable[[str], str] = str) -> str:
    """The data set and split that were attacked, such as `PascalVOC (val)`; empty where the run does not say.

    Example:
        >>> from pathlib import Path
        >>> data_text(Run(Path(), {"data": {"dataset": "PascalVOC", "split": "val"}}, ()))
        'PascalVOC (val)'
    """
    data = run.summary.get("data")
    if not isinstance(data, dict) or "dataset" not in data:
        return ""
    split = data.get("split")
    return called(str(data["dataset"])) + (f" ({split})" if split else "")


def provenance(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """What was attacked, when, by which versions and on which devices, as far as the runs say so.

    Example:
        >>> from pathlib import Path
        >>> data = {"dataset": "PascalVOC", "split": "val", "photos": 1449, "chosen": 100, "size": [480, 480]}
        >>> said = {"data": data, "date": "2026-11-28T12:00:00+00:00", "versions": {"torch": "2.14.1", "other": "1"}}
        >>> dict(provenance([Run(Path(), said, ())]))["data"]
        'PascalVOC (val), 100 of 1449 photos, 480 x 480 pixels'
        >>> [*provenance([Run(Path(), said, ())])][1:]
        [('made', '2026-11-28'), ('versions', 'torch 2.14.1')]
    """
    said = [run.summary for run in runs]
    data = dict.fromkeys(text for run in runs if (text := _photos(run)))
    days = sorted({str(one["date"])[:10] for one in said if "date" in one})
    versions: dict[str, dict[str, None]] = {}
    for one in said:
        for package, version in (one.get("versions") or {}).items():
            versions.setdefault(package, {})[str(version)] = None
    shown = [f"{name} {' and '.join(versions[name])}" for name in _PACKAGES if name in versions]
    devices = dict.fromkeys(_device(one["device"]) for one in said if "device" in one)
    facts = {
        "data": "; ".join(data),
        "made": " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        "versions": ", ".join(shown),
        "device": "; ".join(devices),
    }
    yield from ((name, text) for name, text in facts.items() if text)


def attack_facts(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Budgets, steps and numbers of images of the runs, each in the order in which they occur.

    Example:
        >>> from pathlib import Path
        >>> attacks = [{"steps": n, "norm": {"class": "Linf", "eps": 8 / 255}} for n in (20, 40)]
        >>> [*attack_facts([Run(Path(), {"images": 48, "settings": {"attack": one}}, ()) for one in attacks])]
        [('images', '48'), ('budget', '8/255'), ('steps', '20, 40')]
    """
    facts: dict[str, list[object]] = {
        "images": [run.summary.get("images") for run in runs],
        "budget": [radius_text(run) for run in runs],
        "steps": [steps(run) for run in runs],
    }
    for name, values in facts.items():
        if known := dict.fromkeys(str(value) for value in values if value is not None):
            yield name, ", ".join(known)


def _photos(run: Run) -> str:
    data, text = run.summary.get("data") or {}, data_text(run)
    if not text:
        return ""
    photos, chosen, size = (data.get(key) for key in ("photos", "chosen", "size"))
    if photos is not None:
        text += f", {photos} photos" if chosen in (None, photos) else f", {chosen} of {photos} photos"
    return text + (f", {' x '.join(map(str, size))} pixels" if isinstance(size, list) else "")


def _device(device: Any) -> str:
    if not isinstance(device, dict):
        return str(device)
    return ", ".join(dict.fromkeys(str(device[key]) for key in ("type", "name") if device.get(key)))


def gaps(runs: Sequence[Run], folders: Sequence[str]) -> Iterator[str]:
    """Sentences on what keeps figures of the runs from being compared: other networks, classes or images, gaps.

    Args:
        runs: one or more.
        folders: what each is called.
    """
    reasons = group_runs(runs)[1]
    if reasons:
        yield "The runs do not all go together: figures of runs that are in tables of their own do not compare."
    yield from reasons
    for run, place in zip(runs, folders, strict=True):
        if run.partial:
            yield f"{place} is partial: {missing_words(run.summary)}."
        if skipped := len(run.summary.get("skipped", ())):
            yield f"{place}: {counted(skipped, 'image')} could not be used."
        if failed := sum(bool(record.failed) for record in run.records):
            yield f"{place}: {counted(failed, 'image')} could not be scored on every target."
    yield from doubts(runs, folders)


def doubts(runs: Sequence[Run], folders: Sequence[str]) -> Iterator[str]:
    """What the runs themselves warned of, each warning once with the runs that gave it; labels that were predicted too.

    Args:
        runs: one or more.
        folders: what each is called.

    Example:
        >>> from pathlib import Path
        >>> run = Run(Path(), {"warnings": [{"network": "a", "kind": "near_chance", "message": "look at a"}]}, ())
        >>> [*doubts([run, run], ["one", "two"])]
        ['one and 1 more run: look at a']
    """
    said: dict[str, list[str]] = {}
    for run, place in zip(runs, folders, strict=True):
        messages = [warning["message"] for warning in run.summary.get("warnings", ())]
        if run.summary.get("labels", MASKS) != MASKS:
            messages.append(f"the labels are the {run.summary['labels']}")
        for message in messages:
            said.setdefault(message, []).append(place)
    for message, places in said.items():
        more = f" and {counted(len(places) - 1, 'more run')}" if len(places) > 1 else ""
        yield f"{places[0]}{more}: {message}"


def _steps(settings: Any) -> int:
    """Of an attack with steps these, of others those of the attacks that it is made of."""
    if not isinstance(settings, dict):
        return 0
    if isinstance(settings.get("steps"), int):
        return settings["steps"]
    return sum(map(_steps, (settings.get("attack"), *settings.get("attacks", ()))))

"""What a run was, in words and numbers: its radius, steps and cost, a name for it among others, and its gaps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from lightning_attack.comparison.runs import Run


def radius(run: Run) -> tuple[str, float] | None:
    """Norm and radius of the budget: `("Linf", 0.0314)`; None for attacks without one."""
    found = {(one["norm"]["class"], one["norm"]["eps"]) for one in _loops(_settings(run)) if one.get("norm")}
    return found.pop() if len(found) == 1 else None


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
    return f"{255 * eps:.4g}/255" if norm == "Linf" else f"{eps:.4g} ({norm})"


def steps(run: Run) -> int | None:
    """Steps of the attack, of several attacks in a row their sum; None where it has none.

    Example:
        >>> from pathlib import Path
        >>> attack = {"class": "WorstCase", "attacks": [{"steps": 300}, {"steps": 200}]}
        >>> steps(Run(Path(), {"settings": {"attack": attack}}, ())), steps(Run(Path(), {}, ()))
        (500, None)
    """
    return sum(one["steps"] for one in _loops(_settings(run))) or None


def backward_passes(run: Run) -> float | None:
    """Backward passes of the source for each image."""
    return run.report.get("passes_per_image", {}).get("backward")


def variants(runs: Sequence[Run], without: Collection[str] = ()) -> list[str]:
    """For each run the name of its attack with what tells it from other runs of that attack.

    Args:
        runs: the runs.
        without: of `eps`, `steps` and `seed` those that shall not tell them apart; then names may be equal.

    Example:
        >>> from pathlib import Path
        >>> def run(folder, attack, steps, seed):
        ...     settings = {"attack": {"steps": steps}, "seed": seed}
        ...     return Run(Path(folder), {"attack": attack, "source": "net", "settings": settings}, ())
        >>> runs = [run("a", "pgd", 10, 0), run("b", "pgd", 20, 0), run("c", "bim", 20, 0), run("d", "bim", 20, 0)]
        >>> variants(runs)
        ['pgd, 10 steps', 'pgd, 20 steps', 'bim, c', 'bim, d']
        >>> variants(runs, without=["steps"])
        ['pgd', 'pgd', 'bim', 'bim']
    """
    known = []
    for run in runs:
        parts = {"eps": f"eps {radius_text(run)}", "steps": f"{steps(run)} steps", "seed": f"seed {_seed(run)}"}
        known.append({kind: text for kind, text in parts.items() if kind not in without})
    names = []
    for run, parts in zip(runs, known, strict=True):
        same = [other for other, of in zip(known, runs, strict=True) if of.attack == run.attack]
        differing = [text for kind, text in parts.items() if len({other[kind] for other in same}) > 1]
        names.append(", ".join([run.attack, *differing]))
    if without:
        return names
    count = Counter((name, run.source) for name, run in zip(names, runs, strict=True))
    return [
        f"{name}, {place}" if count[name, run.source] > 1 else name
        for name, run, place in zip(names, runs, places(runs), strict=True)
    ]


def places(runs: Sequence[Run]) -> list[str]:
    """The folders of the runs, seen from the one that they have in common."""
    folders = [run.folder.resolve() for run in runs]
    root = os.path.commonpath([folder.parent for folder in folders])
    return [os.path.relpath(folder, root) for folder in folders]


def gaps(runs: Sequence[Run]) -> Iterator[str]:
    """Sentences on what keeps figures of the runs from being compared: other images or classes, missing images."""
    if len({run.classes for run in runs}) > 1:
        yield "The runs do not all have the same classes: figures of runs with other classes do not compare."
    images = [run.images.keys() for run in runs]
    if any(one != images[0] for one in images):
        common = len(set(images[0]).intersection(*images))
        yield f"The runs do not all have the same images ({common} are common to all): their figures do not compare."
    for run, place in zip(runs, places(runs), strict=True):
        if run.report.get("partial"):
            yield f"{place} is partial: {run.report.get('missing', 'some')} images are missing."
        for what in ("skipped", "failed"):
            if run.report.get(what):
                yield f"{place}: {what} on {len(run.report[what])} images."


def _settings(run: Run) -> dict[str, Any]:
    return run.report.get("settings", {}).get("attack", {})


def _seed(run: Run) -> int | None:
    return run.report.get("settings", {}).get("seed")


def _loops(settings: Any) -> Iterator[dict[str, Any]]:
    """The attacks with steps that an attack is made of: itself, or those inside it."""
    if isinstance(settings, dict):
        if isinstance(settings.get("steps"), int):
            yield settings
        else:
            for inner in (settings.get("attack"), *settings.get("attacks", ())):
                yield from _loops(inner)

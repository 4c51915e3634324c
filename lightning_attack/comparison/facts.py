"""What a run was, in words and numbers: its radius, steps and cost, and its gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lightning_attack.comparison.labels import balls, number, places
from lightning_attack.comparison.runs import Run


def radius(run: Run) -> tuple[str, float] | None:
    """Norm and radius of the budget: `("Linf", 0.0314)`; None for attacks without one, or with several."""
    found = [(str(norm), float(eps)) for norm, eps in balls(run) if eps is not None]
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
    return number(eps, levels=True) if norm == "Linf" else f"{number(eps)} ({norm})"


def steps(run: Run) -> int | None:
    """Steps of the attack, of several attacks in a row their sum; None where it has none.

    Example:
        >>> from pathlib import Path
        >>> attack = {"class": "WorstCase", "attacks": [{"steps": 300}, {"steps": 200}]}
        >>> steps(Run(Path(), {"settings": {"attack": attack}}, ())), steps(Run(Path(), {}, ()))
        (500, None)
    """
    return _steps(run.report.get("settings", {}).get("attack")) or None


def backward_passes(run: Run) -> float | None:
    """Backward passes of the source for each image."""
    return run.report.get("passes_per_image", {}).get("backward")


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


def _steps(settings: Any) -> int:
    """Of an attack with steps these, of others those of the attacks that it is made of."""
    if not isinstance(settings, dict):
        return 0
    if isinstance(settings.get("steps"), int):
        return settings["steps"]
    return sum(map(_steps, (settings.get("attack"), *settings.get("attacks", ()))))

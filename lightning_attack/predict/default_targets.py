"""`fitting_targets`: which targets, that nobody asked for, can be scored beside a source?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from lightning_attack.models.probe import probe
from lightning_attack.models.wrapper import ModelError, as_segmentation_model


def fitting_targets(
    source: nn.Module,
    targets: Mapping[str, nn.Module],
    size: tuple[int, int],
    classes: Sequence[str] | None = None,
    known: Sequence[str] | None = None,
) -> dict[str, str]:
    """Why targets do not fit, by their names; those that fit are not in it.

    Args:
        source: the attacked network.
        targets: networks by name.
        size: height and width of the image of noise on which all are run.
        classes: names of the classes of the data, if they are known.
        known: names of the classes of targets that do not say them.

    Raises:
        ModelError: the source fails.

    Example:
        >>> networks = {"two": nn.Conv2d(3, 2, 1), "three": nn.Conv2d(3, 3, 1)}
        >>> fitting_targets(nn.Conv2d(3, 2, 1), networks, (4, 4))
        {'three': '3 classes, the source has 2'}
        >>> fitting_targets(nn.Conv2d(3, 2, 1), networks, (4, 4), ["sky", "sea"], ["cat", "dog"])
        {'two': 'classes cat, dog; the data has sky, sea', 'three': '3 classes, the source has 2'}
    """
    source = as_segmentation_model(source)
    count = probe(source, source.name, size).shape[1]
    return {
        name: problem
        for name, target in targets.items()
        if (problem := _problem(target, name, size, count, classes, known))
    }


def _problem(
    target: nn.Module,
    name: str,
    size: tuple[int, int],
    count: int,
    classes: Sequence[str] | None,
    known: Sequence[str] | None,
) -> str | None:
    try:
        found = probe(as_segmentation_model(target), name, size).shape[1]
    except ModelError as error:
        return str(error)
    if found != count:
        return f"{found} classes, the source has {count}"
    own = getattr(target, "classes", None) or known
    if own and classes and tuple(own) != tuple(classes):
        return f"classes {_few(own)}; the data has {_few(classes)}"
    return None


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

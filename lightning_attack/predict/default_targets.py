"""Which targets, that nobody asked for, cannot be scored beside a source, and why?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from lightning_attack.models.probe import probe
from lightning_attack.models.wrapper import ModelError, as_segmentation_model


def unfit(
    source: nn.Module, targets: Mapping[str, nn.Module], size: tuple[int, int], may_fail: bool = True
) -> dict[str, str]:
    """Targets that differ from the source in their number of classes, or fail, each with the reason.

    Args:
        source: the attacked network.
        targets: networks by name.
        size: height and width of the image of noise on which all are run.
        may_fail: whether a target that cannot be run is one of those that do not fit; else it is an error.

    Raises:
        ModelError: the source fails, or a target that may not.

    Example:
        >>> unfit(nn.Conv2d(3, 2, 1), {"two": nn.Conv2d(3, 2, 1), "three": nn.Conv2d(3, 3, 1)}, (4, 4))
        {'three': '3 classes, the source has 2'}
    """
    source = as_segmentation_model(source)
    count = probe(source, source.name, size).shape[1]
    found = {}
    for name, target in targets.items():
        try:
            own = probe(as_segmentation_model(target), name, size).shape[1]
        except ModelError as error:
            if not may_fail:
                raise
            found[name] = str(error)
            continue
        if own != count:
            found[name] = f"{own} classes, the source has {count}"
    return found


def other_classes(
    targets: Mapping[str, nn.Module], classes: Sequence[str] | None, known: Sequence[str] | None = None
) -> dict[str, str]:
    """Targets of other classes than the data, as far as both say their names, each with the reason.

    Args:
        targets: networks by name.
        classes: names of the classes of the data; None: not known.
        known: names of the classes of targets that do not say them; None: not known.

    Example:
        >>> other_classes({"a": nn.Identity()}, ["sky", "sea"], ["cat", "dog"])
        {'a': 'classes cat, dog; the data has sky, sea'}
        >>> other_classes({"a": nn.Identity()}, ["sky", "sea"])
        {}
    """
    owned = {name: getattr(target, "classes", None) or known for name, target in targets.items()}
    return {
        name: f"classes {_few(own)}; the data has {_few(classes)}"
        for name, own in owned.items()
        if own and classes and tuple(own) != tuple(classes)
    }


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

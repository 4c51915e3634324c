"""What looks wrong with a result: networks no better than chance, classes that moved, turned masks, shared names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_attack.metrics.agreement import agreement, other_order
from lightning_attack.metrics.orientation import other_orientation
from lightning_attack.predict.doubt import Doubt

FIRST = 4
"""Images after which the clean result is looked at for the first time."""
_NO_SKILL, _NO_KAPPA = 0.03, 0.2
"""Below both, a network is as good as chance: random ones reach 0.03 and 0.05, weak ones that work have more of one."""
_COMMON, _IMAGES = 5e-3, 2
"""A class that is never predicted is missed from this share of the labelled pixels on, in so many images."""
_NAMED = 5


def doubts_about_predictions(
    clean: Mapping[str, np.ndarray], classes: Sequence[str], labels_predicted: bool = False, images: int = 0
) -> list[Doubt]:
    """Networks that are no better than chance on clean images, or whose classes have moved.

    Args:
        clean: by the name of each network its confusion matrix on clean images, (C, C); rows are labels.
        classes: names of the classes.
        labels_predicted: whether the labels are the source's clean prediction.
        images: of how many images, where it is not all of them; 0 = all.

    Example:
        >>> flat = np.array([[60, 0], [40, 0]])       # all is class 0
        >>> [doubt.message[:67] for doubt in doubts_about_predictions({"net": flat}, ["a", "b"])]
        ["the clean mIoU of 'net' is 30.0 %, no better than chance (30.0 %): "]
    """
    found = []
    so_far = f" after the first {images} images" if images else ""
    for name, confusion in clean.items():
        known = agreement(confusion)
        if known is None:
            continue
        other = None if labels_predicted else other_order(confusion)
        if other is not None:
            moved, best = other
            found.append(Doubt(name, "class_order", _moved(name, moved, classes, known.miou, best, so_far)))
        elif known.skill < _NO_SKILL and known.kappa < _NO_KAPPA:
            figures = f"{100 * known.miou:.1f} %{so_far}, no better than chance ({100 * known.chance:.1f} %)"
            advice = (
                f"it agrees with the source's clean prediction, which stands for the labels, at {figures}: one of them "
                "does not recognise these photos. Check weights, mean and std of both, and the order of their classes"
                if labels_predicted
                else "it does not recognise these photos. Check its weights, its mean and std, the order of its "
                "classes and of its color channels, and what the values of the masks mean"
            )
            start = f"'{name}': " if labels_predicted else f"the clean mIoU of '{name}' is {figures}: "
            found.append(Doubt(name, "near_chance", start + advice))
    return found


def doubts_about_orientation(
    labels: Sequence[np.ndarray], predictions: Mapping[str, Sequence[np.ndarray]]
) -> list[Doubt]:
    """Whether networks agree better with masks that are turned or mirrored.

    Args:
        labels: of each image the classes, (H, W).
        predictions: by the name of each network what it predicts for each clean image, (H, W).
    """
    found = []
    for name, seen in predictions.items():
        if (other := other_orientation(labels, seen)) is not None:
            turn, own, better = other
            found.append(
                Doubt(name, "orientation", f"masks and photos seem to lie differently: '{name}' agrees with "
                      f"{100 * own:.0f} % of the labelled pixels of the first {len(labels)} images, and with "
                      f"{100 * better:.0f} % if masks are {turn}. Were they saved as (width, height), or is one of the "
                      "two turned as an EXIF orientation says and the other not?")
            )  # fmt: skip
    return found


def doubts_about_classes(
    labels: np.ndarray, images: np.ndarray, predicted: np.ndarray, classes: Sequence[str]
) -> list[Doubt]:
    """Classes of the data that no network ever predicts on a clean image, though they are common in the labels.

    Args:
        labels: of each class the labelled pixels of all images, (C,).
        images: in how many images it has some, (C,).
        predicted: how many pixels all networks together predict as this class on the clean images, (C,).
        classes: names of the classes.

    Example:
        >>> labels, images, predicted = np.array([18, 10, 12]), np.array([2, 2, 2]), np.array([26, 14, 0])
        >>> [doubt.message[:64] for doubt in doubts_about_classes(labels, images, predicted, ["a", "b", "c"])]
        ["no network predicts 'c' (30.0 % of the labelled pixels) on any c"]
    """
    shares = labels / max(labels.sum(), 1)
    missed = np.flatnonzero((predicted == 0) & (shares >= _COMMON) & (images >= _IMAGES))
    if not len(missed):
        return []
    names = [f"'{classes[place]}' ({100 * shares[place]:.1f} % of the labelled pixels)" for place in missed[:_NAMED]]
    more = f" and {len(missed) - _NAMED} more classes" if len(missed) > _NAMED else ""
    its, these = ("their", "these classes") if len(missed) > 1 else ("its", "this class")
    return [
        Doubt(
            "",
            "never_predicted",
            f"no network predicts {', '.join(names)}{more} on any clean image: {its} IoU is 0 and lowers every mIoU. "
            f"Do the networks know {these}, and do masks and networks number the classes alike?",
        )
    ]


def doubts_about_names(names: Mapping[int, str]) -> list[Doubt]:
    """Images that share a name, so that one was written over the other; of one process they are refused earlier.

    Args:
        names: of all images, by their places in the data set.

    Example:
        >>> doubts_about_names({0: "a", 1: "b"})
        []
        >>> doubts_about_names({0: "a", 1: "b", 2: "a"})[0].message[:38]
        "images 0 and 2 are both named 'a': one"
    """
    first: dict[str, int] = {}
    again = [(first[name], index, name) for index, name in names.items() if first.setdefault(name, index) != index]
    if not again:
        return []
    one, other, name = again[0]
    more = f" (and {len(again) - 1} more share names)" if len(again) > 1 else ""
    return [
        Doubt(
            "",
            "names",
            f"images {one} and {other} are both named '{name}'{more}: one adversarial image was saved over the other, "
            "though all are in the figures. Give each photo a name of its own, and attack them again",
        )
    ]


def _moved(name: str, moved: Mapping[int, int], classes: Sequence[str], miou: float, best: float, so_far: str) -> str:
    pairs = [f"'{classes[label]}' as '{classes[place]}'" for label, place in moved.items()]
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return (
        f"the classes of '{name}' seem to be in another order than those of the masks{so_far}: it predicts "
        f"{', '.join(pairs[:_NAMED])}{more}; its clean mIoU is {100 * miou:.1f} %, and {100 * best:.1f} % in that "
        "order. Check what the values of the masks mean, put a ClassMap around it, or check its color channels (RGB)"
    )

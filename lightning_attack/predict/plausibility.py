"""Is the clean result plausible? What looks wrong with networks and with what they predict on clean images.

An attack changes nothing about these doubts: a network that does not recognise the clean photos gives figures that mean
nothing, however neat the table is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from lightning_attack.common.errors import UserError
from lightning_attack.common.pixels import LEVELS
from lightning_attack.metrics.agreement import agreement, other_order
from lightning_attack.metrics.orientation import other_orientation
from lightning_attack.models.class_map import ClassMap
from lightning_attack.models.ensemble import Ensemble
from lightning_attack.models.initial import has_initial_weights
from lightning_attack.models.wrapper import SegmentationModel

FIRST = 4
"""Images after which the clean result is looked at for the first time."""
_CLOSE = 1e-3
_NO_SKILL, _NO_KAPPA = 0.03, 0.2
"""Below both, a network is as good as chance: random ones reach 0.03 and 0.05, weak ones that work have more of one."""
_COMMON, _IMAGES = 5e-3, 2
"""A class that is never predicted is missed from this share of the labelled pixels on, in so many images."""
_NAMED = 5


class Doubt(NamedTuple):
    """Something that looks wrong, though the run can go on.

    Attributes:
        network: name of the network; empty where it is about all, or about the data.
        kind: `near_chance`, `class_order`, `never_predicted`, `probabilities`, `not_repeatable`, `normalisation`,
            `random_weights`, `orientation` or `labels`.
        message: what looks wrong and what to check, in a sentence or two.
    """

    network: str
    kind: str
    message: str


class PlausibilityError(UserError, ValueError):
    """A doubt in a run with `--strict`."""


LABELS_PREDICTED = Doubt(
    "",
    "labels",
    "the data has no masks, so that the clean prediction of the source stands for the labels: its clean mIoU is 100 by "
    "definition. Set data.dataset to photos with masks",
)
"""No warning, since photos without masks are a usual input, but refused by `--strict`."""


def refuse(doubts: Sequence[Doubt]) -> None:
    """Raise `PlausibilityError` if there are doubts.

    Example:
        >>> refuse([])
        >>> refuse([Doubt("net", "near_chance", "'net' is no better than chance.")])
        Traceback (most recent call last):
            ...
        lightning_attack.predict.plausibility.PlausibilityError: 'net' is no better than chance.
        this is an error because of --strict; without it, it is a warning
    """
    if doubts:
        said = "\n".join(doubt.message for doubt in doubts)
        raise PlausibilityError(f"{said}\nthis is an error because of --strict; without it, it is a warning")


def doubts_about_network(name: str, network: SegmentationModel) -> list[Doubt]:
    """What looks wrong with a network as it was built: random weights, and a normalisation for pixels of 0 to 255
    or one that is done twice.

    Of a network of one's own, whether its weights were loaded cannot be known.

    Example:
        >>> network = SegmentationModel(nn.Identity(), mean=(124, 116, 104), std=(58, 57, 57))
        >>> [(doubt.kind, doubt.message[:60]) for doubt in doubts_about_network("net", network)]
        [('normalisation', "mean and std of 'net' are for pixels of 0 to 255 ([124, 116,")]
    """
    found = []
    for part_name, part in _parts(name, network):
        mean, std = (values.flatten().tolist() for values in (part.mean, part.std))
        given = f"([{', '.join(f'{value:.4g}' for value in mean)}] and [{', '.join(f'{value:.4g}' for value in std)}])"
        if max(mean) > 1 or max(std) > 1:
            found.append(
                Doubt(name, "normalisation", f"mean and std of '{part_name}' are for pixels of 0 to 255 {given}, but "
                      "images are in [0, 1]: divide both by 255")
            )  # fmt: skip
        elif min(std) < 0.99 / LEVELS:
            found.append(
                Doubt(name, "normalisation", f"std of '{part_name}' is so small {given} that normalised images exceed "
                      "pixels of 0 to 255: was it divided by 255 twice?")
            )  # fmt: skip
        changes = any(mean) or any(value != 1 for value in std)
        if changes and (inner := _inner_normalisation(part.network)) is not None:
            found.append(
                Doubt(name, "normalisation", f"'{part_name}' seems to normalise images twice: by its mean and std "
                      f"{given}, and again inside, by those of {inner}. Leave mean and std out if it does so itself")
            )  # fmt: skip
    for module in network.modules():
        if isinstance(module, SegmentationModel) and has_initial_weights(module):
            inside = "" if module is network else f" (in it, {module.name})"
            found.append(
                Doubt(name, "random_weights", f"'{name}'{inside} has random weights: none were loaded, at least not "
                      f"those of its head. Set weights of {type(module).__name__} to a file of trained ones")
            )  # fmt: skip
    return found


_PAIRS = (("mean", "std"), ("pixel_mean", "pixel_std"), ("image_mean", "image_std"))
"""Names under which modules keep what they normalise with: torchvision and kornia, Detectron2, and detectors."""


def _inner_normalisation(network: nn.Module) -> str | None:
    """The class of a module inside a network that has a mean and a std of three colours itself; None: there is none.

    Example:
        >>> class Normalized(nn.Sequential):
        ...     mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        >>> _inner_normalisation(nn.Sequential(Normalized(), nn.Conv2d(3, 8, 1)))
        'Normalized'
        >>> _inner_normalisation(nn.Conv2d(3, 8, 1))
    """
    for module in network.modules():
        for names in _PAIRS:
            mean, std = (_three(getattr(module, name, None)) for name in names)
            if mean is not None and std is not None and (any(mean) or any(value != 1 for value in std)):
                return type(module).__name__
    return None


def _three(values: object) -> list[float] | None:
    """Three numbers, one per colour, of a list or a tensor; None: it holds something else."""
    found = values.flatten().tolist() if isinstance(values, Tensor) and values.numel() == 3 else values
    if isinstance(found, list | tuple) and len(found) == 3 and all(isinstance(value, int | float) for value in found):
        return [float(value) for value in found]
    return None


@contextmanager
def watch_outputs(name: str, network: SegmentationModel) -> Iterator[list[Doubt]]:
    """While the network is run on the probe image, look for probabilities among what it and its members return.

    Example:
        >>> import torch
        >>> network = SegmentationModel(nn.Softmax(1))
        >>> with watch_outputs("net", network) as found:
        ...     _ = network(torch.rand(1, 3, 4, 4))
        >>> [doubt.kind for doubt in found]
        ['probabilities']
    """
    found: list[Doubt] = []
    hooks = [
        part.register_forward_hook(
            lambda module, images, logits, part_name=part_name: found.extend(
                doubts_about_outputs(name, part_name, logits)
            )
        )
        for part_name, part in _parts(name, network)
        if not part.abstains  # equal logits say that nothing is certain, not that they are probabilities
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
    found[:] = dict.fromkeys(found)


def doubts_about_outputs(name: str, part: str, logits: Tensor) -> list[Doubt]:
    """Whether the outputs of a network, or of a part of it, look like probabilities."""
    if float(logits.min()) < 0 or float(logits.max()) > 1:
        return []
    sums = bool((logits.sum(1) - 1).abs().max() < _CLOSE)
    what, kind = (" and sum to 1", "softmax") if sums else ("", "sigmoid")
    return [
        Doubt(
            name,
            "probabilities",
            f"the outputs of '{part}' lie in [0, 1]{what}: they look like probabilities after a {kind}. Attacks expect "
            "logits; on probabilities, gradients fade and losses mean something else. Take it out of the forward",
        )
    ]


def not_repeatable(name: str) -> Doubt:
    """The doubt about a network that gives one image other logits in a second pass."""
    return Doubt(
        name,
        "not_repeatable",
        f"'{name}' gives another result for the same image the second time (dropout or a random view in its "
        "forward?): the run cannot be repeated, and clean and adversarial figures differ by chance",
    )


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


def as_plain(doubts: Sequence[Doubt]) -> list[dict[str, Any]]:
    """The doubts as `transfer.json` has them."""
    return [doubt._asdict() for doubt in doubts]


def _moved(name: str, moved: Mapping[int, int], classes: Sequence[str], miou: float, best: float, so_far: str) -> str:
    pairs = [f"'{classes[label]}' as '{classes[place]}'" for label, place in moved.items()]
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return (
        f"the classes of '{name}' seem to be in another order than those of the masks{so_far}: it predicts "
        f"{', '.join(pairs[:_NAMED])}{more}; its clean mIoU is {100 * miou:.1f} %, and {100 * best:.1f} % in that "
        "order. Check what the values of the masks mean, put a ClassMap around it, or check its color channels (RGB)"
    )


def _parts(name: str, network: SegmentationModel) -> Iterator[tuple[str, SegmentationModel]]:
    """The network and those that it combines or maps."""
    yield name, network
    if isinstance(network, Ensemble):
        for number, member in enumerate(network.members):
            assert isinstance(member, SegmentationModel)
            yield from _parts(f"{name}[{number}]", member)
    elif isinstance(network, ClassMap):
        inner = network.network.model
        assert isinstance(inner, SegmentationModel)
        yield from _parts(name, inner)

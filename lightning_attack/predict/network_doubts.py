"""What looks wrong with a network before it sees a photo: random weights, normalisation, probabilities as outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_attack.common.pixels import LEVELS
from lightning_attack.models.class_map import ClassMap
from lightning_attack.models.ensemble import Ensemble
from lightning_attack.models.initial import has_initial_weights
from lightning_attack.models.wrapper import SegmentationModel
from lightning_attack.predict.doubt import Doubt

_CLOSE = 1e-3


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

"""`changeable_nodes`: the names that `nodes` of a source transform may have, for a network."""

from __future__ import annotations

import torch

from lightning_attack.attacks.base import Model, frozen
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.source_transforms.source import TransformedSource, check_traceable


def changeable_nodes(
    model: Model, transform: SourceTransform, size: tuple[int, int] = (256, 256), batch: int = 2
) -> dict[str, float]:
    """The nodes of a network's graph that a source transform can change, and the depth of each.

    The names are those for the transform's `nodes`. They come from tracing the network for images of one shape. Between
    devices, sizes and versions of torch they may differ.

    Args:
        model: a network, or a `SegmentationModel` around one; of an ensemble, one member.
        transform: such as `SkipGradients()`, with settings at which it changes something.
        size: height and width of the images.
        batch: number of images, on which no name or depth depends.

    Returns:
        Names to depths in [0, 1], in order of execution.

    Raises:
        AttackError: the network has no graph, or nothing that the transform could change; the model is an ensemble.
        ValueError: the transform changes nothing.

    Example:
        >>> from lightning_attack.attacks import LinearBackward
        >>> conv = torch.nn.Conv2d(3, 3, 1)
        >>> network = torch.nn.Sequential(conv, torch.nn.ReLU(), conv, torch.nn.ReLU())
        >>> changeable_nodes(network, LinearBackward(start=0), (8, 8))
        {'relu': 0.5, 'relu_1': 1.0}
    """
    if transform.idle:
        raise ValueError(f"{type(transform).__name__} changes nothing with these settings; give it its defaults")
    source = TransformedSource(model, [transform])
    weight = next((one for one in check_traceable(model).parameters() if one.is_floating_point()), torch.zeros(()))
    images = torch.full((batch, 3, *size), 0.5, device=weight.device, dtype=weight.dtype)
    with frozen(model), torch.no_grad():
        source(images, Draws(range(batch), images.device), 0, images if source.needs_clean else None)
    networks = source.offered()
    if len(networks) > 1:
        names = ", ".join(f"'{name}'" for name, _ in networks)
        raise AttackError(f"each network has nodes of its own; give one of {names}, not all of them")
    ((_, nodes),) = networks
    return nodes

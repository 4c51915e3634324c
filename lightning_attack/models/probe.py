"""`probe`: run a network before anything depends on it, and find the batches that it takes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from lightning_attack.common.user_code import place_in_user_code
from lightning_attack.models.wrapper import ModelError, SegmentationModel, freeze, without_engines

_BATCHES = (2, 4, 8, 16, 32)
"""Fixed batches that are tried where one image alone fails."""
_CLOSE = 1e-3
"""A larger difference of logits, relative to their norm, is not one of rounding."""


def noise(size: tuple[int, int]) -> Tensor:
    """An image of noise, (1, 3, *size) in [0, 1], always the same."""
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def probe(network: nn.Module, name: str, size: tuple[int, int]) -> Tensor:
    """Logits of a small fixed image of noise: shows that a network runs, its classes, and whether two are the same.

    A `SegmentationModel` that cannot be shown one image, because it was traced with a larger batch, is limited to the
    batch that it takes (`limit_batch`).

    Args:
        network: images in [0, 1] to logits; frozen from here on.
        name: for messages.
        size: height and width of the image.

    Raises:
        ModelError: it fails in all batches, or returns numbers that are not finite.
    """
    image = noise(size)
    freeze(network)
    with torch.no_grad(), without_engines(network):
        try:
            logits = network(image)
        except Exception as error:
            limited = _in_other_batches(network, image)
            if limited is None:
                raise error if isinstance(error, ModelError) else _failed(network, name, image, error) from error
            logits = limited
        if not logits.isfinite().all():
            raise ModelError(
                f"network '{name}' returns NaN or infinite logits for an image of noise; are its weights whole?"
            )
    return logits


def _in_other_batches(network: nn.Module, image: Tensor) -> Tensor | None:
    """The logits of the image from a network that takes batches of several images only; it is limited to these."""
    if not isinstance(network, SegmentationModel) or network.has_limited_batches:
        return None
    for batch in _BATCHES:
        try:
            logits = network(image.expand(batch, -1, -1, -1))
        except Exception:  # whatever its code raises
            continue
        network.limit_batch(batch, batch)
        return logits[:1]
    return None


def probe_pair(network: SegmentationModel, name: str, size: tuple[int, int], logits: Tensor) -> bool:
    """Limit a network to one image at a time if a second image makes it fail, or changes the logits of the first.

    Args:
        network: frozen.
        name: for messages.
        size: as for `probe`.
        logits: what `probe` returned.

    Returns:
        Whether the network gives the same image other logits another time.
    """
    known = vars(network)
    if network.has_limited_batches or "_takes_pairs" in known:  # from another run
        return bool(known.get("_is_random"))
    image = noise(size)
    with torch.no_grad(), without_engines(network):
        try:
            beside_another = network(torch.cat([image, image.flip(-1) ** 2]))[:1]
        except Exception:  # whatever its code raises
            network.limit_batch(1, 1)
            return False
        # Random numbers are another matter: the same image has other logits then.
        same = close(beside_another, logits)
        if same or not close(network(image), logits):
            known["_takes_pairs"], known["_is_random"] = True, not same
            return not same
    network.limit_batch(1, 1)
    warnings.warn(
        f"network '{name}' gives an image other logits beside another image (a normalisation over the batch, or a "
        "program traced with one image?): it is shown one image at a time",
        stacklevel=2,
    )
    return False


def close(first: Tensor, second: Tensor) -> bool:
    """Whether logits of one shape are the same but for rounding.

    Example:
        >>> close(torch.ones(2), torch.tensor([1.0, 1.0001])), close(torch.ones(2), torch.tensor([1.0, 1.1]))
        (True, False)
    """
    return bool((first - second).norm() <= _CLOSE * second.norm())


def _failed(network: nn.Module, name: str, image: Tensor, error: Exception) -> ModelError:
    place = place_in_user_code(error)
    return ModelError(
        f"network '{name}' fails on a {image.shape[-2]}x{image.shape[-1]} image ({type(error).__name__}"
        f"{f' at {place}' if place else ''}: {error}){_remedy(network, image, error)}"
    )


def _remedy(network: nn.Module, image: Tensor, error: Exception) -> str:
    """What may be done about a network that fails; nothing is known about mistakes in its code."""
    if isinstance(error, AttributeError | NameError | ImportError):
        return ""
    types = {weight.dtype for weight in network.parameters() if weight.is_floating_point()}
    if others := types - {torch.float32}:
        other = str(others.pop()).removeprefix("torch.")
        return f"; its weights are {other}, images are float32: convert it, .float()"
    try:
        getattr(network, "network", network)(image.movedim(1, -1))
    except Exception:  # whatever its code raises
        return (
            "; if it takes one size only, set model.probe_size to it, if multiples of some size, the network's stride"
        )
    return "; it takes images (B, H, W, 3): wrap it in a network that calls it on x.permute(0, 2, 3, 1)"

"""Can the source be attacked? One pass with a gradient before the run, on an image of noise."""

from __future__ import annotations

import torch
from torch import nn

from lightning_attack.models.probe import noise, probe
from lightning_attack.models.wrapper import ModelError, without_engines
from lightning_attack.predict.doubt import Doubt
from lightning_attack.predict.network_doubts import doubts_about_outputs, not_repeatable

_CLOSE = 1e-3


def check_attackable(source: nn.Module, name: str, size: tuple[int, int]) -> list[Doubt]:
    """Run a frozen network twice, and take the gradient of its cross-entropy with respect to the image.

    Args:
        source: images in [0, 1] to logits, (B, C, H, W).
        name: name of the network, for messages.
        size: height and width of the image of noise.

    Returns:
        What is suspicious about the network.

    Raises:
        ModelError: no gradient reaches the image, it is zero everywhere, or there is one class: an attack would change
            nothing.

    Example:
        >>> check_attackable(nn.Softmax(1), "a", (4, 4))[0].message[:46]
        "the outputs of 'a' lie in [0, 1] and sum to 1:"
        >>> check_attackable(nn.Threshold(2.0, 0.0), "b", (4, 4))
        Traceback (most recent call last):
            ...
        lightning_attack.models.wrapper.ModelError: the gradient of 'b' with respect to the image is zero everywhere
        something in it rounds or thresholds (such as a conversion to 8 bits); attacks need a network without that
    """
    images = noise(size).requires_grad_()
    with torch.enable_grad(), without_engines(source):
        logits = source(images)
        if logits.shape[1] == 1:
            raise ModelError(
                f"'{name}' has one class, which no attack can change\n"
                "a ClassMap needs two target classes; a binary network with one channel has two as it is"
            )
        if not logits.requires_grad:
            raise ModelError(
                f"no gradient reaches the image through '{name}'\n"
                "the forward runs under torch.no_grad or inference_mode, or ends in decisions (argmax)"
            )
        # Towards the class that is least likely: a gradient that does not vanish because the network is sure.
        loss = nn.functional.cross_entropy(logits.float(), logits.detach().argmin(1))
        (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
    if gradient is None:
        raise ModelError(f"the logits of '{name}' do not depend on the image\nattacks need a network of the image")
    if not gradient.any():
        raise ModelError(
            f"the gradient of '{name}' with respect to the image is zero everywhere\n"
            "something in it rounds or thresholds (such as a conversion to 8 bits); attacks need a network without that"
        )
    logits = logits.detach()
    again = probe(source, name, size)
    repeats = torch.allclose(logits, again, rtol=_CLOSE, atol=_CLOSE)
    return doubts_about_outputs(name, name, logits) + ([] if repeats else [not_repeatable(name)])

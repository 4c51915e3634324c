"""`Initial`: are the weights of a network still the random ones that it was built with?"""

from __future__ import annotations

import torch
from torch import nn


class Initial:
    """Remembers the last weight of a network that was built without trained ones: its head, which no encoder brings.

    Loading weights, or training, changes it. So nothing has to be told when the network gets its weights later.

    Args:
        network: the network, just built.

    Example:
        >>> network = nn.Conv2d(3, 2, 1)
        >>> initial = Initial(network)
        >>> initial.kept(network)
        True
        >>> _ = network.load_state_dict(nn.Conv2d(3, 2, 1).state_dict())
        >>> initial.kept(network)
        False
    """

    def __init__(self, network: nn.Module) -> None:
        self._head = None if (head := _head(network)) is None else head.detach().clone()

    def kept(self, network: nn.Module) -> bool:
        """Whether the network, the same as before, still has its initial weights."""
        head = _head(network)
        return head is not None and self._head is not None and torch.equal(head.detach().to(self._head), self._head)


def has_initial_weights(model: nn.Module) -> bool:
    """Whether a `SegmentationModel` was built without trained weights, and has got none since."""
    initial = getattr(model, "_initial", None)
    return isinstance(initial, Initial) and initial.kept(model)


def _head(network: nn.Module) -> torch.Tensor | None:
    """The last weight that is drawn at random: biases are often zeros, before training and after."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    return weights[-1] if weights else None

"""Logits from what a network returns: the forms that networks have, and the one that this project computes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

KEYS = ("out", "logits")
"""Where torchvision and transformers put the logits."""


def main_output(output: object) -> object:
    """The main part of an output: what is under `out` or `logits`, or first in a tuple or list.

    Those are the entries of a dictionary or the attributes of an object (a named tuple, a dataclass).

    Example:
        >>> main_output({"aux": 1, "out": (2, 3)})
        2
        >>> main_output({"masks": 1})
        {'masks': 1}
    """
    if isinstance(output, Tensor):
        return output
    for key in KEYS:
        found = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
        if found is not None:
            return main_output(found)
    # The logits come first, those of auxiliary heads after them.
    return main_output(output[0]) if isinstance(output, tuple | list) and output else output


def described(output: object) -> str:
    """What an output is in a few words: a shape, or the type with the keys.

    Example:
        >>> described({"masks": torch.zeros(1, 2), "loss": 0.0})
        "dict with the keys 'masks' (1, 2), 'loss' float"
    """
    if isinstance(output, Tensor):
        kind = "" if output.is_floating_point() else f" {str(output.dtype).removeprefix('torch.')}"
        return f"{tuple(output.shape)}{kind}"
    name = type(output).__name__
    if isinstance(output, Mapping):
        return f"{name} with the keys " + ", ".join(f"'{key}' {described(value)}" for key, value in output.items())
    return name


def alike(output: object) -> int:
    """How many maps of logits a tuple or list holds that look like its first one, that included; 1 = no others."""
    parts = output if isinstance(output, tuple | list) and main_output(output) is output[0] else [output]
    first = parts[0]
    if not isinstance(first, Tensor):
        return 1
    return sum(isinstance(one, Tensor) and one.ndim == 4 and one.shape[:2] == first.shape[:2] for one in parts)


def fits(small: Sequence[int], size: Sequence[int], slack: int = 1) -> bool:
    """Whether a map of h x w can be one of an image of H x W: both sides divided by the same, but for rounding.

    Args:
        small: h and w.
        size: H and W.
        slack: how many rows or columns rounding may make.

    Example:
        >>> fits((16, 25), (64, 97)), fits((97, 64), (64, 97))
        (True, False)
    """
    return abs(small[0] / size[0] - small[1] / size[1]) <= slack / min(*size)


def is_cut(small: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a map of h x w looks like one of H x W without its border: smaller, but not by a stride of 2 or more.

    Up to 3 rows and columns count as rounding.

    Example:
        >>> is_cut((56, 88), (64, 96)), is_cut((32, 48), (64, 96)), is_cut((512, 512), (513, 513))
        (True, False, False)
    """
    return all(length / 2 + 2 < side < length - 3 for side, length in zip(small, size, strict=True))


def classes_are_last(shape: Sequence[int], size: Sequence[int]) -> bool | None:
    """Whether (B, a, b, c) is (B, h, w, classes) rather than (B, classes, h, w), for images of `size`.

    None if it can be both, or neither.

    Example:
        >>> classes_are_last((1, 64, 96, 8), (64, 96)), classes_are_last((1, 8, 16, 24), (64, 96))
        (True, False)
        >>> classes_are_last((1, 8, 8, 8), (64, 64)) is None
        True
    """
    first, last = tuple(shape[2:]), tuple(shape[1:3])
    for question in (lambda small: small == tuple(size), lambda small: fits(small, size)):
        if question(first) != question(last):
            return question(last)
    return None


def as_logits(output: Tensor, last: bool, one_is_binary: bool = True) -> Tensor:
    """(B, classes, h, w); the single logit z of a binary network becomes the logits [0, z] of two classes.

    softmax([0, z])[1] = sigmoid(z), so cross-entropy is the binary one, and the prediction is class 1 where z > 0.

    Args:
        output: (B, C, h, w), or (B, h, w, C) if `last`.
        last: where the classes are.
        one_is_binary: whether a single channel is such a logit.

    Example:
        >>> z = torch.tensor([[[[2.0, -1.0]]]])
        >>> as_logits(z, last=False).argmax(1)
        tensor([[[1, 0]]])
        >>> torch.equal(as_logits(z, last=False).softmax(1)[:, 1:], z.sigmoid())
        True
    """
    logits = output.movedim(-1, 1) if last else output
    return torch.cat([torch.zeros_like(logits), logits], 1) if one_is_binary and logits.shape[1] == 1 else logits

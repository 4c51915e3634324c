"""The sizes of images that an exported program takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Range = tuple[int, int]
"""The least and the most that is allowed."""
FREE = 2**31
"""More images, rows or columns than there are; the upper end of a range without one."""


def size_limits(program: torch.export.ExportedProgram, metadata: dict[str, Any]) -> list[Range]:
    """The least and the most of batch, height and width that a program takes.

    Args:
        program: takes images (B, 3, H, W).
        metadata: what the file says, see `export_model`.

    Example:
        >>> traced = torch.export.export(torch.nn.Conv2d(3, 2, 1), (torch.rand(1, 3, 8, 8),))
        >>> size_limits(traced, {}), size_limits(traced, {"size": "any"})[1] == (1, FREE)
        ([(1, 1), (8, 8), (8, 8)], True)
    """
    limits: list[Range] = [(1, FREE)] * 3
    images = next((node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs), None)
    value = None if images is None else images.meta.get("val")
    if isinstance(value, Tensor) and value.ndim == 4:
        known = {str(symbol): found for symbol, found in program.range_constraints.items()}
        for place, side in enumerate((value.shape[0], value.shape[2], value.shape[3])):
            limits[place] = (side, side) if isinstance(side, int) else _range(known.get(str(side)))
    # Programs of `export_model` were compared with their network at sizes that the tracer did not promise.
    for place, free in ((0, metadata.get("batch")), (1, metadata.get("size")), (2, metadata.get("size"))):
        if free == "any":
            limits[place] = 1, FREE
    return limits


def _range(constraint: Any) -> Range:
    """A range of the tracer as integers."""
    if constraint is None:
        return 1, FREE
    least, most = constraint.lower, constraint.upper  # of sympy, where the upper one may be infinite
    # All ranges of the tracer begin at 2, and programs take 1 all the same: torch does not check that bound either.
    return (int(least) if least > 2 else 1), (int(most) if most < FREE else FREE)


def said(size: list[Range]) -> str:
    """Height and width for a message.

    Example:
        >>> said([(128, 128), (32, FREE)])
        '[128, 32 to any]'
    """
    if all(least == most for least, most in size):
        return str([least for least, _ in size])
    names = (f"{least}" if least == most else f"{least} to {most if most < FREE else 'any'}" for least, most in size)
    return "[" + ", ".join(names) + "]"

"""What becomes of a batch when images of it cannot be attacked, or memory is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_attack.engine import out_of_memory
from lightning_attack.models.wrapper import ModelError
from lightning_attack.predict.batches import divide, select

OnError = Literal["raise", "skip"]
"""What becomes of an image that cannot be attacked or scored: an error, or it is left out."""
Skipped = tuple[int, str, str]
"""Position in the data set, name and reason of an image that was left out."""


class ImageError(ModelError):
    """Images that a network cannot be attacked or scored on: their names by row of the batch, and the reason."""

    def __init__(self, names: dict[int, str], reason: str) -> None:
        said = ", ".join(f"'{name}'" for name in names.values())
        super().__init__(f"{reason} for {said}; --on_error=skip leaves out what fails")
        self.names, self.reason = names, reason


def attempt(
    batch: dict[str, Any],
    attack: Callable[[dict[str, Any]], dict[str, Any]],
    on_error: OnError,
    skipped: list[Skipped],
    halve: bool = True,
) -> list[dict[str, Any]]:
    """The outputs of `attack` for a batch: in one part; in two if memory is short; without images that fail.

    Args:
        batch: what the attack is given; `image` and what belongs to the images.
        attack: returns the outputs of a batch; raises `ImageError` for images that fail.
        on_error: whether such an error is raised, or those images are left out.
        skipped: is told what was left out.
        halve: whether a batch that does not fit into memory is tried again in halves.

    Raises:
        ImageError: with `on_error="raise"`.
        RuntimeError: what else the attack raises, as for a single image that does not fit.
    """
    count = len(batch["image"])
    try:
        return [attack(batch)]
    except ImageError as error:
        if on_error == "raise":
            raise
        skipped += [(int(batch["index"][row]), name, error.reason) for row, name in error.names.items()]
        rest = [row for row in range(count) if row not in error.names]
        return attempt(select(batch, rest), attack, on_error, skipped, halve) if rest else []
    except RuntimeError as error:
        if count == 1 or not halve or not out_of_memory(error):
            raise
    # Here and not above, where the error's traceback would keep the tensors of the failed pass.
    half = -(-count // 2)
    rank_zero_warn(f"out of memory with {count} images; trying again with {half}: data.batch_size={half} avoids it")
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    return [one for part in divide(batch, half) for one in attempt(part, attack, on_error, skipped, halve=False)]


def refuse(bad: Tensor, names: list[str], reason: str) -> None:
    """Raise `ImageError` if any image is bad, (B,)."""
    if bad.any():
        raise ImageError({row: names[row] for row in bad.nonzero().flatten().tolist()}, reason)


def finite(values: Tensor) -> Tensor:
    """Which images have no NaN and nothing infinite, (B,).

    Example:
        >>> finite(torch.tensor([[1.0, 2.0], [torch.nan, 3.0]]))
        tensor([ True, False])
    """
    return values.isfinite().flatten(1).all(1)

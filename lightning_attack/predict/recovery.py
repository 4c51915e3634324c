"""What happens to a batch when some of its images cannot be attacked, or when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_attack.engine import out_of_memory
from lightning_attack.models.wrapper import ModelError
from lightning_attack.predict.batches import Batch, Skipped, split, take
from lightning_attack.predict.output import AttackOutput

OnError = Literal["raise", "skip"]
"""What happens to an image that cannot be attacked or scored: an error, or it is left out."""


class ImageError(ModelError):
    """Images on which a network cannot be attacked or scored: `names` by row of the batch, and the `reason`."""

    def __init__(self, names: dict[int, str], reason: str) -> None:
        images = ", ".join(f"'{name}'" for name in names.values())
        super().__init__(f"{reason} for {images}; --on_error=skip leaves out what fails")
        self.names, self.reason = names, reason


def check_on_error(on_error: OnError) -> OnError:
    """`on_error` as it is, if it is a known choice.

    Raises:
        ValueError: it is not.
    """
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error={on_error!r}: must be one of {', '.join(get_args(OnError))}")
    return on_error


def attempt(
    batch: Batch,
    attack: Callable[[Batch], AttackOutput],
    on_error: OnError,
    skipped: list[Skipped],
    halve: bool = True,
) -> list[AttackOutput]:
    """The output of `attack` for a batch, in two parts if memory runs out, and without images that fail.

    Args:
        batch: the batch.
        attack: returns the output for a batch; raises `ImageError` for images that fail.
        on_error: whether such an error is raised, or those images are left out.
        skipped: images that are left out are appended to it.
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
        return attempt(take(batch, rest), attack, on_error, skipped, halve) if rest else []
    except RuntimeError as error:
        if count == 1 or not halve or not out_of_memory(error):
            raise
    # Here and not above, where the error's traceback would keep the tensors of the failed pass.
    half = -(-count // 2)
    rank_zero_warn(f"out of memory with {count} images; trying again with {half}: data.batch_size={half} avoids it")
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    return [one for part in split(batch, half) for one in attempt(part, attack, on_error, skipped, halve=False)]


def refuse(bad: Tensor, names: list[str], reason: str) -> None:
    """Raise `ImageError` if any image is bad.

    Args:
        bad: (B,) bool.
        names: names of the images.
        reason: what is wrong with the bad ones.
    """
    if bad.any():
        raise ImageError({row: names[row] for row in bad.nonzero().flatten().tolist()}, reason)


def finite(values: Tensor) -> Tensor:
    """Which images have only finite values, (B,) bool.

    Example:
        >>> finite(torch.tensor([[1.0, 2.0], [torch.nan, 3.0]]))
        tensor([ True, False])
    """
    return values.isfinite().flatten(1).all(1)

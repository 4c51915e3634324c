"""What happens to a batch when some of its images cannot be attacked, or when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_attack.engine import out_of_memory
from lightning_attack.models.wrapper import ModelError
from lightning_attack.predict.batches import Batch, Skipped, take
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


class Attempts:
    """Attacks batches in smaller parts once memory has run out, and without images that fail.

    Args:
        on_error: whether images that fail are an error (`raise`), or are left out (`skip`).
        largest: most images that are attacked at once; None: whole batches, until memory runs out.

    Example:
        >>> attempts = Attempts(largest=2)
        >>> attempts({"image": torch.zeros(5, 3, 1, 1)}, lambda batch: len(batch["image"]), [])
        [2, 2, 1]
    """

    def __init__(self, on_error: OnError = "raise", largest: int | None = None) -> None:
        self.on_error, self.largest = on_error, largest

    def __call__(
        self, batch: Batch, attack: Callable[[Batch], AttackOutput], skipped: list[Skipped]
    ) -> list[AttackOutput]:
        """The outputs of `attack` for a batch.

        Where memory runs out, half as many images are tried, and never again more than what fitted: a batch that does
        not fit costs time before it fails.

        Args:
            batch: the batch.
            attack: returns the output for a batch; raises `ImageError` for images that fail.
            skipped: images that are left out are appended to it.

        Raises:
            ImageError: with `on_error="raise"`.
            Exception: what else the attack raises, as for a single image that does not fit.
        """
        outputs: list[AttackOutput] = []
        rows = list(range(len(batch["image"])))
        while rows:
            size = min(len(rows), self.largest or len(rows))
            part = take(batch, rows[:size])
            try:
                outputs.append(attack(part))
            except ImageError as error:
                if self.on_error == "raise":
                    raise
                skipped += [(int(part["index"][row]), name, error.reason) for row, name in error.names.items()]
                rows = [row for place, row in enumerate(rows) if place not in error.names]
                continue
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
                self.largest = -(-size // 2)
            else:
                rows = rows[size:]
                continue
            # Here and not above, where the error's traceback would keep the tensors of the failed pass.
            rank_zero_warn(
                f"out of memory with {size} images; trying again with {self.largest}: "
                f"data.batch_size={self.largest} avoids it"
            )
            if torch.accelerator.is_available():
                torch.accelerator.empty_cache()
        return outputs


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

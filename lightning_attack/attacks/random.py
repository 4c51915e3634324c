"""Randomness by image: what is drawn for an image depends on its seed, not on its batch, rank or device."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import prod

import torch
from torch import Tensor

from lightning_attack.attacks.ahead import DrawnAhead, Kind
from lightning_attack.attacks.to_device import to_device

MANY = 2**16
"""As many numbers for one image are worth drawing ahead."""


def image_seeds(seed: int, indices: Tensor | Sequence[int]) -> list[int]:
    """One seed for each image of a data set, from the seed of the run and the image's position in the data set.

    Example:
        >>> image_seeds(0, [3, 4]) == [*image_seeds(0, [3]), *image_seeds(0, [4])]
        True
        >>> image_seeds(0, [3]) == image_seeds(1, [3])
        False
    """
    return [_hash(f"{seed}/{int(index)}") for index in indices]


class Draws:
    """Random numbers of one attack on one batch: a stream of its own for each image and each purpose.

    Numbers are drawn on the CPU in float32 and then moved, so that they are the same on every device and for every
    floating type. For a device with memory of its own, many numbers are drawn ahead, see `DrawnAhead`. A stream goes on
    where it stopped: the second draw of a purpose differs from the first, and using one more purpose leaves the others
    as they were.

    Args:
        seeds: one integer per image.
        device: where the numbers are wanted.
        partners: other images of the data set for those who mix images, (B, P, 3, H, W), drawn for each image.

    Example:
        >>> both, second = Draws([7, 8]), Draws([8])
        >>> bool((both.uniform("start", (3,))[1] == second.uniform("start", (3,))[0]).all())
        True
    """

    def __init__(
        self, seeds: Sequence[int], device: torch.device | str = "cpu", partners: Tensor | None = None
    ) -> None:
        self.seeds, self.device, self.partners = list(seeds), device, partners
        self._generators: dict[tuple[int, str], torch.Generator] = {}
        self._rows = list(range(len(self.seeds)))
        self._ahead: dict[str, DrawnAhead] = {}

    def select(self, rows: Sequence[int]) -> Draws:
        """The streams of some of the images, which go on where they stand; both move them on, so use one at a time."""
        self.settle()
        partners = None if self.partners is None else self.partners[list(rows)]
        chosen = Draws([self.seeds[row] for row in rows], self.device, partners)
        chosen._generators, chosen._rows = self._generators, [self._rows[row] for row in rows]
        return chosen

    def settle(self) -> None:
        """Put the streams to where they are without what was drawn ahead, for others who go on with them."""
        for ahead in self._ahead.values():
            ahead.settle()

    def fork(self) -> Draws:
        """Streams of their own that give the numbers that these will give."""
        self.settle()
        again = Draws(self.seeds, self.device, self.partners)
        again._rows = self._rows
        again._generators = {key: stream.clone_state() for key, stream in self._generators.items()}
        return again

    def uniform(self, purpose: str, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers in [low, high), shape (B, *shape), float32, on the device."""
        return self._each(purpose, "uniform", tuple(shape)) * (high - low) + low

    def uniform_on_host(self, purpose: str) -> list[float]:
        """One number in [0, 1) per image, for decisions that Python takes: nothing waits for the device."""
        if purpose in self._ahead:
            self._ahead[purpose].settle()
        return [float(torch.rand((), generator=generator)) for generator in self._streams(purpose)]

    def normal(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, shape (B, *shape), float32, on the device."""
        return self._each(purpose, "normal", tuple(shape))

    def _each(self, purpose: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        streams = self._streams(purpose)
        if prod(shape) >= MANY and torch.device(self.device).type not in ("cpu", "mps"):
            ahead = self._ahead.setdefault(purpose, DrawnAhead(streams))
            return to_device(ahead.take(kind, shape), self.device)
        if purpose in self._ahead:
            self._ahead[purpose].settle()
        draw = torch.rand if kind == "uniform" else torch.randn
        return to_device(torch.stack([draw(shape, generator=stream) for stream in streams]), self.device)

    def _streams(self, purpose: str) -> list[torch.Generator]:
        return [self._stream(row, seed, purpose) for row, seed in zip(self._rows, self.seeds, strict=True)]

    def _stream(self, row: int, seed: int, purpose: str) -> torch.Generator:
        """The stream of the image that is at `row` of the first batch, of which this one may be a part."""
        if (row, purpose) not in self._generators:
            self._generators[row, purpose] = torch.Generator("cpu").manual_seed(_hash(f"{seed}/{purpose}"))
        return self._generators[row, purpose]


def _hash(text: str) -> int:
    """63 bits of a hash that is the same in every process and version of Python."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

"""Randomness by image: what is drawn for an image depends on its seed, not on its batch, rank or device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from lightning_attack.attacks.to_device import to_device


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
    floating type. A stream goes on where it stopped: the second draw of a purpose differs from the first, and using
    one more purpose leaves the others as they were.

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
        self._generators: dict[str, list[torch.Generator]] = {}

    def select(self, rows: Sequence[int]) -> Draws:
        """The streams of some of the images, which go on where they stand."""
        partners = None if self.partners is None else self.partners[list(rows)]
        chosen = Draws([self.seeds[row] for row in rows], self.device, partners)
        chosen._generators = {purpose: [streams[row] for row in rows] for purpose, streams in self._generators.items()}
        return chosen

    def uniform(self, purpose: str, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers in [low, high), shape (B, *shape), float32, on the device."""
        return self._each(purpose, lambda generator: torch.rand(tuple(shape), generator=generator)) * (high - low) + low

    def uniform_on_host(self, purpose: str) -> list[float]:
        """One number in [0, 1) per image, for decisions that Python takes: nothing waits for the device."""
        return [float(torch.rand((), generator=generator)) for generator in self._streams(purpose)]

    def normal(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, shape (B, *shape), float32, on the device."""
        return self._each(purpose, lambda generator: torch.randn(tuple(shape), generator=generator))

    def _each(self, purpose: str, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return to_device(torch.stack([draw(generator) for generator in self._streams(purpose)]), self.device)

    def _streams(self, purpose: str) -> list[torch.Generator]:
        if purpose not in self._generators:
            self._generators[purpose] = [
                torch.Generator("cpu").manual_seed(_hash(f"{seed}/{purpose}")) for seed in self.seeds
            ]
        return self._generators[purpose]


def _hash(text: str) -> int:
    """63 bits of a hash that is the same in every process and version of Python."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

"""`Run`: what source transforms may use while the source runs on a batch: random numbers, clean features, the step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.to_device import to_device


class Run:
    """One forward pass of the source on a batch, and the one on the clean images before it, if a transform asks for it.

    The network itself may run several times in a pass: on each window of a photo, on parts of a batch if it takes only
    so many images at a time. Numbers are drawn for all images of the batch at once, from each image's own stream, so an
    image's depend on none of this.

    Args:
        draws: the batch's random numbers.
        step: number of the attack's step, from 0.

    Attributes:
        recording: whether this is the pass on the clean images.
    """

    def __init__(self, draws: Draws, step: int) -> None:
        self.draws, self.step, self.recording = draws, step, False
        self._batch = len(draws.seeds)
        self._clean: dict[tuple[str, int], Tensor] = {}
        self._networks: dict[int, _Part] = {}
        self._now = _Part()

    def restart(self, recording: bool) -> None:
        """Begin a pass of the source."""
        self.recording = recording
        self._networks.clear()

    @property
    def ran(self) -> bool:
        """Whether the network has run in this pass."""
        return bool(self._networks)

    def enter(self, images: Tensor, number: int = 0) -> None:
        """A network runs on these images: all of the batch, or its next part.

        Args:
            images: (B, 3, H, W).
            number: tells the networks of an ensemble apart, each of which may run on part after part.
        """
        now = self._now = self._networks.setdefault(number, _Part())
        now.call += 1
        count = len(images)
        if now.next == 0:
            now.numbers.clear()
        rows = range(now.next, now.next + count)
        now.next = 0 if rows.stop >= self._batch else rows.stop
        if rows.stop <= self._batch:
            now.rows = slice(rows.start, rows.stop)
            return
        # A part may be filled up with copies of its last image, and a network may show itself several views.
        there = [row % self._batch if count > self._batch else min(row, self._batch - 1) for row in rows]
        now.rows = to_device(torch.tensor(there), images.device)

    def normal(self, key: str, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape and type of a value."""
        return self._own(key, lambda: self.draws.normal(key, like.shape[1:])).to(like.dtype)

    def uniform(self, key: str, like: Tensor, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers in [low, high), (B, *shape), of the type of a value."""
        return self._own(key, lambda: self.draws.uniform(key, shape, low, high)).to(like.dtype)

    def keep(self, key: str, value: Tensor) -> None:
        """Keep a clean feature."""
        self._clean[key, self._now.call] = value

    def clean(self, key: str, like: Tensor) -> Tensor:
        """What a node computed on the clean images in this place of the pass.

        Raises:
            AttackError: nothing of that shape.
        """
        value = self._clean.get((key, self._now.call))
        if value is None or value.shape != like.shape:
            raise AttackError("the source did not run on the clean images as it does on the adversarial ones")
        return value

    def _own(self, key: str, draw: Callable[[], Tensor]) -> Tensor:
        if key not in self._now.numbers:
            self._now.numbers[key] = draw()
        return self._now.numbers[key][self._now.rows]


class _Part:
    """Where a network is in a pass."""

    def __init__(self) -> None:
        self.call = -1
        self.next = 0  # first image of the next part
        self.rows: Tensor | slice = slice(None)  # images of this part
        self.numbers: dict[str, Tensor] = {}  # of all images of the batch

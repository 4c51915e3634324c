"""`DrawnAhead`: random numbers drawn on other threads while a device works."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["uniform", "normal"]


class DrawnAhead:
    """The numbers of some streams, one for each image; the next ones are drawn before they are asked for.

    Attacks that sample ask for the same shape again and again, and drawing on the host takes about as long as a pass on
    a GPU. From the second time on, the numbers for the next time are drawn while the device works. If another shape or
    kind is asked for instead, the streams go back, so that their numbers are those of drawing one after the other.

    Args:
        streams: a generator of the CPU for each image.

    Example:
        >>> both = [torch.Generator().manual_seed(3) for _ in range(2)]
        >>> ahead = DrawnAhead(both[:1])
        >>> taken = [ahead.take("uniform", (2,)) for _ in range(3)]          # the fourth is being drawn
        >>> bool((torch.cat(taken).flatten() == torch.cat([torch.rand(2, generator=both[1]) for _ in range(3)])).all())
        True
    """

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        self._streams = list(streams)
        self._asked: tuple[Kind, tuple[int, ...]] | None = None
        self._next: tuple[Tensor, list[Future[None]]] | None = None
        self._states: list[Tensor] = []

    def take(self, kind: Kind, shape: Sequence[int]) -> Tensor:
        """The next numbers, (B, *shape), float32, on the CPU, in pinned memory where there is CUDA."""
        wanted = kind, tuple(shape)
        again = wanted == self._asked
        if not again:
            self.settle()
        values, drawing = self._next or self._begin(*wanted)
        for future in drawing:
            future.result()
        self._asked, self._next = wanted, None
        if again:
            self._states = [stream.get_state() for stream in self._streams]
            self._next = self._begin(*wanted)
        return values

    def settle(self) -> None:
        """Put the streams to where they are without what was drawn ahead."""
        if self._next is not None:
            for future in self._next[1]:
                future.result()
            for stream, state in zip(self._streams, self._states, strict=True):
                stream.set_state(state)
        self._asked = self._next = None

    def _begin(self, kind: Kind, shape: tuple[int, ...]) -> tuple[Tensor, list[Future[None]]]:
        values = torch.empty(len(self._streams), *shape, pin_memory=torch.cuda.is_available())
        rows = zip(values, self._streams, strict=True)
        return values, [_threads().submit(_fill, row, kind, stream) for row, stream in rows]


def _fill(row: Tensor, kind: Kind, stream: torch.Generator) -> None:
    draw = torch.rand if kind == "uniform" else torch.randn
    draw(row.shape, generator=stream, out=row)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "random numbers")

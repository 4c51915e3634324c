"""`Timing`: time and memory of a few batches, for the estimates of a dry run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput

_SAFE = 0.9
"""Share of the free memory of a GPU that a batch may take: sizes of photos and of algorithms vary."""


@dataclass(frozen=True)
class Timed:
    """What a batch of a process took.

    Attributes:
        photos: in the batch.
        warm: whether one or more batches went before it.
        seconds: of the whole batch, with reading its photos.
        attack: seconds of the attack alone.
        passes: backward passes of the source per photo.
        memory: bytes per photo at the peak; None where the system does not tell.
        fits: photos of a batch that would fill the GPU; None on other devices.
    """

    photos: int
    warm: bool
    seconds: float
    attack: float
    passes: float
    memory: float | None
    fits: int | None


class Timing(Callback):
    """Times the last batch of those of full size; in the ones before it, networks warm up.

    Attributes:
        timed: what was found; None if no image could be attacked.
    """

    clock = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.timed: Timed | None = None
        self._last = 0.0
        self._before: int | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: AttackModule) -> None:
        self._last = self.clock()
        if pl_module.device.type == "cuda":
            self._before = torch.cuda.memory_allocated(pl_module.device)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: AttackModule, outputs: AttackOutput, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        now = self.clock()
        if len(outputs) and (self.timed is None or len(outputs) >= self.timed.photos):
            memory, fits = self._memory(pl_module, outputs)
            backward = outputs.passes.get("backward", 0.0)
            self.timed = Timed(len(outputs), batch_idx > 0, now - self._last, outputs.seconds, backward, memory, fits)
        self._last = self.clock()

    def _memory(self, module: AttackModule, outputs: AttackOutput) -> tuple[float | None, int | None]:
        if self._before is None:
            return outputs.memory, None
        together = min(len(outputs), module.largest_batch or len(outputs))
        peak = max(torch.cuda.max_memory_allocated(module.device) - self._before, 1) / together
        free = torch.cuda.mem_get_info(module.device)[0] + torch.cuda.memory_reserved(module.device) - self._before
        return peak, None if module.exact else max(int(_SAFE * free / peak), 1)

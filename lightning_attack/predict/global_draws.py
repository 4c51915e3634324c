"""`drawn_globally`: whether an attack takes random numbers that do not belong to its images."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_globally(device: torch.device, tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` if the `with` block drew from a global random generator: of torch, of Python or of numpy.

    What is drawn there for an image depends on which images were attacked before it, and so on batch size, ranks, and
    on where a run was resumed.

    Args:
        device: where the images are; its generator counts, and that of the CPU.
        tell: takes nothing.
    """
    before = _states(device)
    yield
    if _states(device) != before:
        tell()


def _states(device: torch.device) -> list[object]:
    name, keys, *rest = np.random.get_state()
    states: list[object] = [
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        name,
        np.asarray(keys).tobytes(),
        *rest,
    ]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).numpy().tobytes())
    return states

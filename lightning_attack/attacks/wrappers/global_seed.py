"""`global_seed`: seeds for code that draws from the global random generators."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, Python and numpy for a `with` block, and put them back afterwards."""
    numpy = importlib.import_module("numpy")
    states = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            numpy.random.seed(seed % 2**32)
            yield
        finally:
            random.setstate(states[0])
            numpy.random.set_state(states[1])

"""Bring what the processes of a run hold together."""

from __future__ import annotations

from typing import Any

from torch import distributed


def gather(item: Any) -> list[Any]:
    """The items of all processes in the order of their ranks, on every process; all of them must call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [item]
    items: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(items, item)
    return items

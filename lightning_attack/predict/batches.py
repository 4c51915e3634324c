"""Batches divided into smaller ones, and what the predict step says of these put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def divide(batch: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """The batch in parts of `size` images, the last one smaller; what belongs to images is divided, the rest repeated.

    Example:
        >>> [part["name"] for part in divide({"image": torch.zeros(3, 1), "name": ["a", "b", "c"]}, 2)]
        [['a', 'b'], ['c']]
    """
    count = len(batch["image"])
    return [select(batch, range(start, min(start + size, count))) for start in range(0, count, size)]


def select(batch: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The images at `rows` of a batch, in that order."""
    count = len(batch["image"])
    chosen: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor) and len(value) == count:
            chosen[key] = value[list(rows)]
        elif isinstance(value, list) and len(value) == count:
            chosen[key] = [value[row] for row in rows]
        else:
            chosen[key] = value
    return chosen


def join(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The outputs of the predict step for the parts of one batch, as those of the whole batch.

    Tensors are put together along the batch, lists one after the other; `seconds` and `scoring` are added, `passes`
    averaged over the images, of `memory` the most is kept. A part with fewer attack steps than another has NaN in the
    figures of the steps that it lacks.

    Example:
        >>> one = {"name": ["a"], "seconds": 1.0, "passes": {"forward": 2.0}, "figures": [{"loss": torch.ones(1)}]}
        >>> two = {"name": ["b"], "seconds": 2.0, "passes": {"forward": 4.0}, "figures": []}
        >>> joined = join([one, two])
        >>> joined["name"], joined["seconds"], joined["passes"], joined["figures"]
        (['a', 'b'], 3.0, {'forward': 3.0}, [{'loss': tensor([1., nan])}])
    """
    if len(parts) == 1:
        return parts[0]
    counts = [len(part["name"]) for part in parts]
    joined: dict[str, Any] = {}
    for key, value in parts[0].items():
        values = [part[key] for part in parts]
        if key == "figures":
            joined[key] = _figures(values, counts)
        elif key == "memory":
            joined[key] = None if None in values else max(values)
        elif key == "passes":
            joined[key] = {
                kind: sum(passes[kind] * count for passes, count in zip(values, counts, strict=True)) / sum(counts)
                for kind in value
            }
        elif key == "preds":
            joined[key] = {
                name: {condition: torch.cat([one[name][condition] for one in values]) for condition in value[name]}
                for name in value
            }
        elif isinstance(value, Tensor):
            joined[key] = torch.cat(values)
        else:
            joined[key] = sum(values[1:], value)
    return joined


def _figures(parts: Sequence[Sequence[Mapping[str, Tensor]]], counts: Sequence[int]) -> list[dict[str, Tensor]]:
    steps = []
    for step in range(max(map(len, parts))):
        names = dict.fromkeys(name for part in parts if step < len(part) for name in part[step])
        steps.append(
            {
                name: torch.cat(
                    [
                        part[step][name].float().cpu()
                        if step < len(part) and name in part[step]
                        else torch.full((count,), torch.nan)
                        for part, count in zip(parts, counts, strict=True)
                    ]
                )
                for name in names
            }
        )
    return steps

"""The counts of whole runs, read from their records when they are asked for; those of a few runs are kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.records import Facts
from lightning_attack.runs.store import RecordStore

_ROOM = 256 * 2**20
"""Bytes that are kept, of all runs together; the run that was asked for last stays in any case."""
_Counts = tuple[np.ndarray, np.ndarray | None]
_kept: OrderedDict[int, tuple[Sequence[Facts], _Counts]] = OrderedDict()
"""By the identity of a run's facts, which are kept too, so that nothing else can have it."""


def counts_of(folder: Path, facts: Sequence[Facts]) -> _Counts:
    """Counts of all images of a run over all their pixels.

    Args:
        folder: of the run.
        facts: of its records; the same object stands for the same run.

    Returns:
        (images, targets, 2, 3, C) uint32, and along the run's curve (images, targets, points, 3, C); None without one.

    Raises:
        RunsError: a record is damaged or gone.
    """
    if id(facts) not in _kept:
        _kept[id(facts)] = facts, _read(folder, facts)
        while len(_kept) > 1 and sum(_bytes(counts) for _, counts in _kept.values()) > _ROOM:
            _kept.popitem(last=False)
    _kept.move_to_end(id(facts))
    return _kept[id(facts)][1]


def _read(folder: Path, facts: Sequence[Facts]) -> _Counts:
    networks, _, conditions, kinds, classes = facts[0].shape if facts else (0,) * 5
    counts = np.zeros((len(facts), networks, conditions, kinds, classes), np.uint32)
    curves: list[np.ndarray] = []
    try:
        for row, record in enumerate(RecordStore(folder).read([one.index for one in facts])):
            counts[row] = record.counts[:, 0]
            if record.curve is not None:
                curves.append(record.curve.astype(np.uint32))
    except (OSError, KeyError, ValueError) as error:
        raise RunsError(f"the records of '{folder}' have changed or are damaged ({error})") from error
    return counts, np.stack(curves) if curves and len(curves) == len(facts) else None


def _bytes(counts: _Counts) -> int:
    return sum(array.nbytes for array in counts if array is not None)

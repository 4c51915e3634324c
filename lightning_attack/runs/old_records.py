"""Records of older versions: a file for each image, with whole confusion matrices. They are read, never written."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attack.metrics.iou import class_counts
from lightning_attack.runs.records import Record, RecordError, Sparse

_ARRAYS = {"figures": "figure", "flips": "flip"}
"""Fields that hold arrays by name, and what their keys in a file begin with."""


def read_old_record(path: Path) -> Record:
    """Read the record in a file of its own: a SHA-256, and an `.npz` after it.

    Raises:
        RecordError: it is torn or damaged.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise RecordError(f"'{path}' is damaged or was not written to its end")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            facts = json.loads(arrays["plain"].tobytes())
            named: dict[str, Any] = {
                kind: {key.partition("/")[2]: arrays[key] for key in arrays.files if key.startswith(f"{prefix}/")}
                for kind, prefix in _ARRAYS.items()
            }
            confusion = arrays["confusion"]  # (targets, parts, 2, C, C)
            curve = _counts(arrays["curve"]) if "curve" in arrays.files else None
            clean = Sparse.of(np.ascontiguousarray(confusion[:, 0, 0]))
            record = Record(counts=_counts(confusion), clean=clean, curve=curve, **named, **facts)
    except (ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise RecordError(f"'{path}' is no record of this version ({error})") from error
    if path.stem != f"{record.index:08d}":
        raise RecordError(f"'{path}' is the record of image {record.index}")
    return record


def _counts(confusion: np.ndarray) -> np.ndarray:
    return class_counts(confusion).astype(np.int64)

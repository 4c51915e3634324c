"""`Record`: the counts of one attacked image, written at once, so that a run can be stopped anywhere and go on."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.names import record_files, record_path

__all__ = ["Record", "RecordError", "read_record", "record_files", "record_path", "write_record"]
_ARRAYS = {"figures": "figure", "flips": "flip"}
"""Fields that hold arrays by name, and what their keys in a file begin with."""


class RecordError(ValueError):
    """A file that is no whole record: torn, damaged, or of another version."""


@dataclass(frozen=True)
class Record:
    """One image of a run: counts and sizes, from which every figure of the run follows by exact sums.

    Attributes:
        index: position in the data set.
        name: of the image.
        confusion: (targets, parts, 2, C, C) int64, clean and adversarial.
        size: `linf`, `l2` and `psnr` of the perturbation, see `metrics.perturbation_size`.
        passes: `forward` and `backward` passes of the source.
        seconds: this image's share of the attack's time.
        scoring: its share of the time that all networks took to score it.
        memory: its share of the memory at the attack's peak, in bytes; None where that is not known.
        digest: hash of the photo and its masks, and after a `+` of an adversarial image made elsewhere.
        failed: for targets that could not be scored the reason, by name; their counts are 0.
        figures: by name the figures of all steps, float64, NaN where a step has none.
        flips: where pixels flipped, see `flips.flip_counts`; empty in records of older versions.
        curve: (targets, points, C, C) int64, adversarial confusion matrices along the run's curve; None without one.
    """

    index: int
    name: str
    confusion: np.ndarray
    size: dict[str, float]
    passes: dict[str, float]
    seconds: float
    scoring: float = 0.0
    memory: float | None = None
    digest: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    figures: dict[str, np.ndarray] = field(default_factory=dict)
    flips: dict[str, np.ndarray] = field(default_factory=dict)
    curve: np.ndarray | None = None


def write_record(folder: Path, record: Record) -> None:
    """Write a record below a run's folder; it is complete when it appears, and begins with its own SHA-256."""
    plain = {field.name: getattr(record, field.name) for field in fields(record)
             if field.name not in ("confusion", "curve", *_ARRAYS)}  # fmt: skip
    arrays = {f"{prefix}/{name}": values for kind, prefix in _ARRAYS.items()
              for name, values in getattr(record, kind).items()}  # fmt: skip
    if record.curve is not None:
        arrays["curve"] = record.curve
    text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, plain=text, confusion=record.confusion, **arrays)
    with atomic_write(record_path(folder, record.index)) as path:
        path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        RecordError: it is torn or damaged.
        OSError: it cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_record(Path(folder), Record(7, "a", np.eye(2, dtype=np.int64), {"l2": 0.5}, {"forward": 1}, 0.1))
        ...     path = record_path(Path(folder), 7)
        ...     name = read_record(path).name
        ...     _ = path.write_bytes(path.read_bytes()[:-1])
        ...     try:
        ...         read_record(path)
        ...     except RecordError as error:
        ...         name, str(error).replace(str(path), "FILE")
        ('a', "'FILE' is damaged or was not written to its end")
    """
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise RecordError(f"'{path}' is damaged or was not written to its end")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            plain = json.loads(arrays["plain"].tobytes())
            named: dict[str, Any] = {
                kind: {key.partition("/")[2]: arrays[key] for key in arrays.files if key.startswith(f"{prefix}/")}
                for kind, prefix in _ARRAYS.items()
            }
            curve = arrays["curve"] if "curve" in arrays.files else None
            record = Record(confusion=arrays["confusion"], curve=curve, **named, **plain)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RecordError(f"'{path}' is no record of this version ({error})") from error
    if path.stem != f"{record.index:08d}":
        raise RecordError(f"'{path}' is the record of image {record.index}")
    return record

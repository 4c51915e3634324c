"""`Record`: the counts of one attacked image, and how they are packed into bytes."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Facts", "Record", "RecordError", "Sparse", "pack", "unpack", "unpack_facts"]
_NAMED = ("figures", "flips")
"""Fields that hold arrays by name."""
_ARRAYS = ("counts", "clean", "curve", *_NAMED)
_LENGTH = struct.Struct("<I")


class RecordError(ValueError):
    """Something that is no whole record: torn, damaged, or of another version."""


class Sparse(NamedTuple):
    """An array of integers, most of which are 0.

    Attributes:
        shape: of the array.
        places: where the others stand in the flattened array, ascending.
        values: the others.

    Example:
        >>> sparse = Sparse.of(np.array([[0, 7], [0, 0]]))
        >>> sparse.places.tolist(), sparse.values.tolist(), sparse.dense().tolist()
        ([1], [7], [[0, 7], [0, 0]])
    """

    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> Sparse:
        """Of an array."""
        places = np.flatnonzero(array)
        return cls(array.shape, places, array.ravel()[places])

    def add_to(self, total: np.ndarray) -> None:
        """Add the array to another one of its shape, which must lie in memory in one piece."""
        total.reshape(-1)[self.places] += self.values

    def dense(self) -> np.ndarray:
        """The array, int64."""
        array = np.zeros(self.shape, np.int64)
        self.add_to(array)
        return array


@dataclass(frozen=True)
class Record:
    """One image of a run: counts and sizes, from which every figure of the run follows by exact sums.

    Nothing but `clean` is as large as the square of the number of classes, and that only as far as classes occur.

    Attributes:
        index: position in the data set.
        name: of the image.
        counts: hits, labels and predictions of each class (see `metrics.iou.class_counts`) for clean and adversarial
            image, (targets, parts, 2, 3, C) integers.
        clean: confusion matrices of the clean image over all its labelled pixels, (targets, C, C).
        size: `linf`, `l2` and `psnr` of the perturbation, see `metrics.perturbation_size`.
        passes: `forward` and `backward` passes of the source.
        seconds: this image's share of the attack's time.
        scoring: its share of the time that all networks took to score it.
        memory: its share of the memory at the attack's peak, in bytes; None where that is not known.
        digest: hash of the photo and its masks, and after a `+` of an adversarial image made elsewhere.
        failed: for targets that could not be scored the reason, by name; their counts are 0.
        figures: by name the figures of all steps, float64, NaN where a step has none.
        flips: where pixels flipped, see `flips.flip_counts`; empty in records of older versions.
        curve: hits, labels and predictions along the run's curve, (targets, points, 3, C) integers; None without one.
    """

    index: int
    name: str
    counts: np.ndarray
    clean: Sparse
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a record without its counts.

    Attributes:
        index: see `Record`.
        name: likewise.
        digest: likewise.
        failed: likewise.
        shape: of its counts.
    """

    index: int
    name: str
    digest: str
    failed: dict[str, str]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, record: Record) -> Facts:
        """Of a record."""
        return cls(record.index, record.name, record.digest, record.failed, record.counts.shape)


def pack(record: Record) -> bytes:
    """A record as bytes: the length of a JSON text, the text, and the arrays that it names, compressed by zlib.

    Integers take as few bytes as the largest of an array needs.

    Example:
        >>> record = Record(7, "a", np.eye(2, dtype=int), Sparse.of(np.eye(2, dtype=int)), {"l2": 0.5}, {}, 0.1)
        >>> again = unpack(pack(record))
        >>> again.name, again.counts.dtype.name, again.clean.dense().tolist()
        ('a', 'uint8', [[1, 0], [0, 1]])
    """
    facts = {one.name: getattr(record, one.name) for one in fields(record) if one.name not in _ARRAYS}
    arrays = {
        "counts": _smallest(record.counts),
        # Differences, for these are small numbers, of which zlib makes less.
        "clean/places": _smallest(np.diff(record.clean.places, prepend=0)),
        "clean/values": _smallest(record.clean.values),
        **({"curve": _smallest(record.curve)} if record.curve is not None else {}),
        **{f"figures/{name}": values for name, values in record.figures.items()},
        **{f"flips/{name}": _smallest(values) for name, values in record.flips.items()},
    }
    shapes = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    text = json.dumps({"facts": facts, "clean": record.clean.shape, "arrays": shapes}).encode()
    content = b"".join(array.tobytes() for array in arrays.values())
    return _LENGTH.pack(len(text)) + text + zlib.compress(content, 1)


def unpack(content: bytes) -> Record:
    """The record that `pack` has made bytes of.

    Raises:
        RecordError: it is of another version.
    """
    try:
        head, start = _head(content)
        arrays, place, data = {}, 0, zlib.decompress(content[start:])
        for name, kind, shape in head["arrays"]:
            dtype, count = np.dtype(kind), int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(data, dtype, count, place).reshape(shape)
            place += count * dtype.itemsize
        named: dict[str, Any] = {
            kind: {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{kind}/")}
            for kind in _NAMED
        }
        places = np.cumsum(arrays["clean/places"], dtype=np.int64)
        clean = Sparse(tuple(head["clean"]), places, arrays["clean/values"])
        return Record(counts=arrays["counts"], clean=clean, curve=arrays.get("curve"), **named, **head["facts"])
    except (ValueError, KeyError, TypeError, struct.error, zlib.error) as error:
        raise RecordError(f"no record of this version ({error})") from error


def unpack_facts(content: bytes) -> Facts:
    """The facts of a packed record; much quicker than `unpack`.

    Raises:
        RecordError: it is of another version.
    """
    try:
        head, _ = _head(content)
        shapes = {name: tuple(shape) for name, _, shape in head["arrays"]}
        facts = head["facts"]
        return Facts(facts["index"], facts["name"], facts["digest"], facts["failed"], shapes["counts"])
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise RecordError(f"no record of this version ({error})") from error


def _head(content: bytes) -> tuple[dict[str, Any], int]:
    """The JSON text of a packed record, and where its arrays begin."""
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    return json.loads(content[_LENGTH.size : end]), end


def _smallest(array: np.ndarray) -> np.ndarray:
    """Integers of 0 or more in the smallest type that has room for them, little-endian."""
    if array.size and array.min() < 0:
        raise ValueError(f"counts must be 0 or more, not {array.min()}")
    return array.astype(np.min_scalar_type(int(array.max(initial=0))).newbyteorder("<"))

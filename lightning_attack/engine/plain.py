"""`plain`: what settings hold, as numbers, text, lists and dictionaries, by which two of them are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from hashlib import blake2b
from pathlib import PurePath

import torch
from torch import Tensor, nn

from lightning_attack.engine.content import content


def plain(value: object, of_object: Callable[[object], object]) -> object:
    """A value for JSON; what is no value but holds values is told by a hash of these, functions by their names.

    Args:
        value: of a setting.
        of_object: tells what else there is, such as objects with settings of their own.

    Example:
        >>> from pathlib import Path
        >>> plain([1, Path("a"), {2: torch.float16}, "8/255"], type)
        [1, 'a', {'2': 'torch.float16'}, '8/255']
        >>> plain(torch.ones(2), type) == plain(torch.ones(2), type), plain(torch.ones(2), type)["shape"]
        (True, [2])
        >>> plain(plain, type)
        'lightning_attack.engine.plain.plain'
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(one, of_object) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(one, of_object) for one in value), key=str)
    if isinstance(value, Mapping):
        return {str(key): plain(one, of_object) for key, one in value.items()}
    if isinstance(value, Tensor):
        return {"class": "Tensor", "shape": [*value.shape], "hash": _hash(str(value.dtype).encode(), content(value))}
    if isinstance(value, nn.Module):
        tensors = [part for name, one in value.state_dict().items() if isinstance(one, Tensor)
                   for part in (name.encode(), content(one))]  # fmt: skip
        return {"class": type(value).__name__, "hash": _hash(str(value).encode(), *tensors)}
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, partial):
        parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
        return {"class": "partial", **{key: plain(one, of_object) for key, one in parts.items()}}
    if isinstance(value, PurePath | torch.dtype | torch.device | bytes | complex | range | slice):
        return str(value)
    if hasattr(value, "__qualname__"):  # a function or a class
        return f"{getattr(value, '__module__', '')}.{value.__qualname__}"
    if hasattr(value, "tobytes") and hasattr(value, "dtype") and hasattr(value, "shape"):  # an array of NumPy
        if not value.shape and hasattr(value, "item"):
            return plain(value.item(), of_object)
        return {
            "class": type(value).__name__,
            "shape": [*value.shape],
            "hash": _hash(str(value.dtype).encode(), value.tobytes()),
        }
    return of_object(value)


def _hash(*parts: bytes | memoryview) -> str:
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

"""Values that the user's code names, as text that is the same in every process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from hashlib import blake2b
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

from lightning_attack.common.user_code import is_users

_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset)


def has_text(value: Any) -> bool:
    """Whether more is known of a value than its class."""
    return isinstance(value, _PLAIN) or _state(value) is not None


def value_text(value: Any, met: dict[int, Any] | None = None) -> str:
    """A value as text: sets in order, objects by class and state, and those whose state is not known by class only.

    Args:
        value: the value.
        met: objects whose state was told already, by their `id`.

    Example:
        >>> value_text({"b": {"y", "x"}, "a": [1, object()], "c": SimpleNamespace(d=2), "e": functools.partial(int, 3)})
        "{'b': {'x', 'y'}, 'a': [1, object], 'c': SimpleNamespace({'d': 2}), 'e': partial([int, [3], {}])}"
    """
    met = {} if met is None else met
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{value_text(key, met)}: {value_text(one, met)}" for key, one in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(value_text(one, met) for one in value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(one, met) for one in value) + "]"
    if isinstance(value, _PLAIN):
        return repr(value)
    value = uncached(value)
    name: str = getattr(value, "__qualname__", type(value).__qualname__)
    if id(value) in met or (state := _state(value)) is None:
        return name
    met[id(value)] = value  # kept, so that no other object gets its id
    return f"{name}({value_text(state, met)})"


def uncached(value: Any) -> Any:
    """The function inside of what `functools.cache` has made of it; other values as they are."""
    inner = getattr(value, "__dict__", {}).get("__wrapped__")
    return inner if isinstance(inner, FunctionType) and not isinstance(value, FunctionType) else value


def layers(function: FunctionType) -> list[FunctionType]:
    """A function and those that it wraps, as decorators note with `functools.wraps`, from the outside in.

    Example:
        >>> def inner(): ...
        >>> outer = functools.wraps(inner)(lambda: inner())
        >>> layers(inner) == [inner], layers(outer) == [outer, inner]
        (True, True)
    """
    found = [function]
    while isinstance(inner := getattr(found[-1], "__wrapped__", None), FunctionType) and inner not in found:
        found.append(inner)
    return found


def enclosed(function: FunctionType) -> dict[str, Any]:
    """The variables of the functions around it that a function uses, by name."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if not _is_empty(cell)}


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def _state(value: Any) -> Any:
    """What a value consists of, beside its class and code; None where there is nothing, or it is not known."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, FunctionType):
        return enclosed(layers(value)[-1]) or None
    if isinstance(value, type):
        return None
    if hasattr(value, "dtype") and (hasattr(value, "detach") or hasattr(value, "tobytes")):  # a tensor, or an array
        return [str(value.dtype), tuple(value.shape), blake2b(_content(value), digest_size=8).hexdigest()]
    if isinstance(value, SimpleNamespace) or may_hold_parts(type(value)):
        return _attributes(value) or None
    return None


def _content(array: Any) -> bytes:
    """The values of a tensor or of an array."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().to_dense()
        array = (array.double() if array.is_floating_point() else array).numpy()  # numpy knows no bfloat16
    return repr(array.tolist()).encode() if array.dtype.hasobject else bytes(array.tobytes())


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object; of a network its tensors too, and none that torch keeps beside them."""
    kind = type(value)
    slots = [name for one in kind.__mro__ for name in getattr(one, "__slots__", ()) if hasattr(value, name)]
    known = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    found = {name: one for name, one in known.items()
             if not isinstance(getattr(kind, name, None), functools.cached_property)}  # fmt: skip
    if not hasattr(value, "state_dict"):
        return found
    public = {name: one for name, one in found.items() if name[0] != "_" and name != "training"}
    return public | value.state_dict()


def may_hold_parts(kind: type) -> bool:
    """Whether objects of a class may hold parts: those of this package, modules of torch, and those of the user."""
    return kind.__module__.startswith("lightning_attack.") or hasattr(kind, "forward") or is_users(source_file(kind))


def source_file(part: Any) -> str:
    """The file that defines a class or function, whatever that wraps; empty where there is none."""
    if isinstance(part, FunctionType):
        return part.__code__.co_filename
    return str(getattr(sys.modules.get(getattr(part, "__module__", "")), "__file__", None) or "")

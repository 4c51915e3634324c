"""Hashes of the user's code that decides on results: own attacks, their parts, own networks, and what these call."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from lightning_attack.common.user_code import is_users

_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset)


def user_code(objects: Iterable[object]) -> dict[str, str]:
    """The user's classes and functions among some objects and in what they hold, each with a hash of its code.

    The hash covers the classes and functions of the user that the code names, and constants of its modules. Comments,
    docstrings and layout do not count. Code of this package, of Python and of installed packages has no hash.

    Args:
        objects: instances, classes, functions, or containers of these.

    Example:
        >>> user_code([user_code, 1, [str]])
        {}
    """
    found: dict[str, str] = {}
    for one in _held(objects):
        for part in _kinds(one):
            name = f"{part.__module__}.{part.__qualname__}"
            if name not in found and (text := _text(part, set())):
                found[name] = blake2b(text.encode(), digest_size=8).hexdigest()
    return dict(sorted(found.items()))


def _held(objects: Iterable[object]) -> Iterator[object]:
    """The objects, and those in their attributes, lists and dictionaries."""
    waiting, seen = [*objects], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | int | float | bytes | ModuleType):
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif isinstance(one, functools.partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, MethodType):
            waiting += [one.__func__, one.__self__]
        elif isinstance(one, FunctionType):
            waiting += [cell.cell_contents for cell in one.__closure__ or () if not _is_empty(cell)]
        elif not isinstance(one, type) and _is_ours(type(one)):
            waiting += getattr(one, "__dict__", {}).values()


def _is_ours(kind: type) -> bool:
    """Whether objects of a class may hold parts: those of this package, modules of torch, and those of the user."""
    return kind.__module__.startswith("lightning_attack.") or hasattr(kind, "forward") or is_users(_file(kind))


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def _kinds(one: object) -> Iterator[Any]:
    """The user's classes and functions that an object is of."""
    if isinstance(one, FunctionType):
        found: tuple[Any, ...] = (one,)
    else:
        found = one.__mro__ if isinstance(one, type) else type(one).__mro__
    yield from (part for part in found if is_users(_file(part)))


def _file(part: Any) -> str:
    code = getattr(inspect.unwrap(part), "__code__", None) if isinstance(part, FunctionType) else None
    if code is not None:
        return str(code.co_filename)
    return str(getattr(sys.modules.get(getattr(part, "__module__", "")), "__file__", None) or "")


def _text(part: Any, seen: set[int]) -> str:
    """The normalised source of a class or function and of all of the user's that it names; nothing if there is none."""
    if id(part) in seen:
        return ""
    seen.add(id(part))
    try:
        source = textwrap.dedent(inspect.getsource(part))
    except (OSError, TypeError):
        return ""
    texts = [_normal(source)]
    module = sys.modules.get(part.__module__)
    for name, value in sorted(_named(part, vars(module) if module else {}).items()):
        if isinstance(value, _PLAIN):
            texts.append(f"{name} = {_constant(value)}")
        texts += [_text(kind, seen) for kind in _kinds(value)]
    return "\n".join(texts)


def _constant(value: Any) -> str:
    """A constant as text that is the same in every process: sets in order, and of objects the class only.

    Example:
        >>> _constant({"b": {"y", "x"}, "a": [1, object()]})
        "{'b': {'x', 'y'}, 'a': [1, object]}"
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_constant(key)}: {_constant(one)}" for key, one in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_constant, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_constant, value)) + "]"
    return repr(value) if isinstance(value, _PLAIN) else getattr(value, "__qualname__", type(value).__qualname__)


def _named(part: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the code of a class or function names of its module, and of the user's modules that it names."""
    names = {name for code in _codes(part) for name in code.co_names}
    found = {name: known[name] for name in names if name in known}
    for module in [value for value in found.values() if isinstance(value, ModuleType)]:
        if is_users(str(getattr(module, "__file__", None) or "")):
            found |= {f"{module.__name__}.{name}": vars(module)[name] for name in names if name in vars(module)}
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def _codes(part: Any) -> Iterator[CodeType]:
    """The code of a function, or of all functions of a class, with what is defined inside."""
    if isinstance(part, type):
        members: Iterable[Any] = vars(part).values()
        for member in members:
            for function in (member, *(getattr(member, name, None) for name in ("fget", "__func__", "func"))):
                if isinstance(function, FunctionType):
                    yield from _codes(function)
        return
    waiting = [inspect.unwrap(part).__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _normal(source: str) -> str:
    """Source without comments, docstrings and layout; as it is where it is no whole statement, as of a lambda."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node, False):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)

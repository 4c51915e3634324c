"""Hashes of the user's code that decides on results: own attacks, their parts, own networks, and what these call."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from lightning_attack.common.user_code import is_users
from lightning_attack.common.user_values import (
    enclosed,
    has_text,
    layers,
    may_hold_parts,
    source_file,
    uncached,
    value_text,
)


def user_code(objects: Iterable[object]) -> dict[str, str]:
    """The user's classes and functions among some objects and in what they hold, each with a hash of its code.

    The hash covers the classes and functions of the user that the code names, the user's decorators, and the values
    that it names of its modules and of functions around it: constants, arrays, arguments of partial functions,
    attributes of objects. Comments, docstrings and layout do not count. Code of this package, of Python and of
    installed packages has no hash.

    Args:
        objects: instances, classes, functions, or containers of these.

    Example:
        >>> user_code([user_code, 1, [str]])
        {}
    """
    texts: defaultdict[str, set[str]] = defaultdict(set)  # one name may stand for several functions made by another
    for one in _held(objects):
        for part in _kinds(one):
            if text := _text(part, set()):
                texts[_name(part)].add(text)
        if isinstance(one, functools.partial):
            for part in _kinds(uncached(one.func)):
                texts[_name(part)].add(value_text(one))
    hashes = {name: blake2b("\n".join(sorted(found)).encode(), digest_size=8) for name, found in texts.items()}
    return {name: found.hexdigest() for name, found in sorted(hashes.items())}


def _name(part: Any) -> str:
    return f"{part.__module__}.{part.__qualname__}"


def _held(objects: Iterable[object]) -> Iterator[object]:
    """The objects, and those in their attributes, lists and dictionaries."""
    waiting, seen = [*objects], set[int]()
    while waiting:
        one = uncached(waiting.pop())
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
            waiting += enclosed(one).values()
        elif not isinstance(one, type) and may_hold_parts(type(one)):
            waiting += getattr(one, "__dict__", {}).values()


def _kinds(one: object) -> Iterator[Any]:
    """The user's classes and functions that an object is of."""
    if isinstance(one, FunctionType):
        found: Iterable[Any] = layers(one)
    else:
        found = one.__mro__ if isinstance(one, type) else type(one).__mro__
    yield from (part for part in found if is_users(source_file(part)))


def _text(part: Any, seen: set[int]) -> str:
    """The normalised source of a class or function and of all of the user's that it names; nothing if there is none."""
    if id(part) in seen:
        return ""
    seen.add(id(part))
    function = isinstance(part, FunctionType)
    try:
        source = textwrap.dedent(inspect.getsource(part.__code__ if function else part))
    except (OSError, TypeError):
        return ""
    texts = [_normal(source)]
    if function:
        named = _named(part, part.__globals__) | enclosed(part)
    else:
        texts += [_text(kind, seen) for one in _functions(part) if _is_decorated(one) for kind in _kinds(one)]
        named = _named(part, vars(sys.modules.get(part.__module__, object)))
    for name, value in sorted(named.items()):
        value = uncached(value)
        if has_text(value):
            texts.append(f"{name} = {value_text(value)}")
        texts += [_text(kind, seen) for kind in _kinds(value)]
        inside = [kind for one in _held([value]) if one is not value for kind in _kinds(one)]
        texts += filter(None, (_text(kind, seen) for kind in sorted(inside, key=_name)))  # sets have no order
    return "\n".join(texts)


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
    inner = [layers(one)[-1] for one in _functions(part)] if isinstance(part, type) else [part]
    waiting = [one.__code__ for one in inner]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _functions(part: type) -> Iterator[FunctionType]:
    """The functions of a class, those of properties and of class and static methods among them."""
    for member in vars(part).values():
        for one in (member, *(getattr(member, name, None) for name in ("fget", "__func__", "func", "__wrapped__"))):
            if isinstance(one, FunctionType):
                yield one


def _is_decorated(function: FunctionType) -> bool:
    """Whether a function of a class is what a decorator of the user has made of it, whose source stands elsewhere."""
    own = [*_kinds(function)]
    return len(own) > 1 or any(enclosed(one).keys() - {"__class__"} for one in own)


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

"""`named`: did the user say something about a setting, on the command line or in a file of their own?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import yaml

from lightning_attack.common.configs import find_config


def named(words: Sequence[str], keys: Iterable[str]) -> set[str]:
    """Which keys the words of a command line, or the files that they name, set as a whole or in part.

    Args:
        words: of the command line.
        keys: each of two words, such as `model.targets`.

    Example:
        >>> named(["predict", "--model.targets.a.name=b"], ["model.targets"]), named(["predict"], ["model.targets"])
        ({'model.targets'}, set())
        >>> named(["predict", "-c", "{model: {targets: {}}}"], ["model.source", "model.targets"])
        {'model.targets'}
    """
    content = cache(_content)  # each file is read once, whatever the number of keys
    given = list(options(words))
    return {key for key in keys if any(_sets(option, value, key, content) for option, value in given)}


def file_with(key: str, words: Sequence[str]) -> str | None:
    """The file at `-c` that has a nested key such as `model.target`; None if none has."""
    for option, value in options(words):
        content = _content(value) if option in ("-c", "--config") and find_config(value) else None
        for part in key.split("."):
            content = content.get(part, _NOTHING) if isinstance(content, dict) else _NOTHING
        if content is not _NOTHING:
            return value
    return None


_NOTHING = object()


def _sets(option: str, value: str, key: str, content_of: Callable[..., object]) -> bool:
    """Whether an option with this value sets a key or a part of it."""
    part, _, last = key.partition(".")
    if option == f"--{key}" or option.startswith((f"--{key}.", f"--{key}+")):
        return True
    if option == f"--{part}":
        return _has(content_of(value), last)
    if option not in ("-c", "--config"):
        return False
    content = content_of(value)
    inner = content.get(part) if isinstance(content, dict) else None
    # A file is looked for beside the one that names it.
    inner = content_of(inner, (find_config(value) or Path()).parent) if isinstance(inner, str) else inner
    return _has(content, key) or _has(inner, last)


def options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of a command line with their values."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option.startswith("-"):
            yield option, value if equals else following


def _has(content: object, key: str) -> bool:
    keys = content if isinstance(content, dict) else ()
    return any(str(one).removesuffix("+") == key or str(one).startswith(f"{key}.") for one in keys)


def _content(value: str, folder: Path = Path()) -> object:
    """What a file, or a configuration in one line, holds; None if that cannot be told: the parser says why."""
    file = find_config(value, [folder])
    try:
        return yaml.safe_load(Path(file).read_text("utf-8-sig") if file else value)
    except (OSError, ValueError, yaml.YAMLError):
        return None

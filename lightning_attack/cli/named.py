"""`names`: did the user say something about a setting, on the command line or in a file of their own?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from lightning_attack.common.configs import find_config


def names(words: Sequence[str], key: str) -> bool:
    """Whether the words of a command line, or the files that they name, set a key or a part of it.

    Args:
        words: of the command line.
        key: of two words, such as `model.targets`.

    Example:
        >>> names(["predict", "--model.targets.a.name=b"], "model.targets"), names(["predict"], "model.targets")
        (True, False)
        >>> names(["predict", "-c", "{model: {targets: {}}}"], "model.targets")
        True
    """
    part, _, last = key.partition(".")
    for option, value in _options(words):
        if option == f"--{key}" or option.startswith((f"--{key}.", f"--{key}+")):
            return True
        if option == f"--{part}" and _has(_content(value), last):
            return True
        if option in ("-c", "--config"):
            content = _content(value)
            inner = content.get(part) if isinstance(content, dict) else None
            inner = _content(inner) if isinstance(inner, str) else inner
            if _has(content, key) or _has(inner, last):
                return True
    return False


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option.startswith("-"):
            yield option, value if equals else following


def _has(content: object, key: str) -> bool:
    keys = content if isinstance(content, dict) else ()
    return any(str(one).removesuffix("+") == key or str(one).startswith(f"{key}.") for one in keys)


def _content(value: str) -> object:
    """What a file, or a configuration in one line, holds; None if that cannot be told: the parser says why."""
    file = find_config(value)
    try:
        return yaml.safe_load(Path(file).read_text("utf-8-sig") if file else value)
    except (OSError, ValueError, yaml.YAMLError):
        return None

"""Presets by their bare names wherever an attack stands: in files, in options, and inside other attacks."""

from __future__ import annotations

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from lightning_attack.attacks import PRESETS

_KEYS = ("attack", "attacks")
"""Arguments of attacks that take other ones."""
_PRESETS = frozenset(preset.__name__ for preset in PRESETS)


def qualified(name: Any) -> Any:
    """The path by which the preset of a name can be imported; anything else as it is.

    Example:
        >>> qualified("pgd"), qualified("APGD"), qualified("no_attack")    # the last is a file of a class
        ('lightning_attack.attacks.pgd', 'APGD', 'no_attack')
    """
    return f"lightning_attack.attacks.{name}" if isinstance(name, str) and name in _PRESETS else name


def with_presets(value: Any) -> Any:
    """What YAML holds, changed in place: each preset by its path, at `class_path` and where an attack takes others.

    Example:
        >>> with_presets({"class_path": "StartFrom", "init_args": {"file": "pgd", "attack": "pgd"}})
        {'class_path': 'StartFrom', 'init_args': {'file': 'pgd', 'attack': 'lightning_attack.attacks.pgd'}}
    """
    seen: set[int] = set()  # an alias may lead back to where it stands
    left = [value]
    while left:
        part = left.pop()
        if id(part) in seen or not isinstance(part, dict | list):
            continue
        seen.add(id(part))
        left += part.values() if isinstance(part, dict) else part
        if isinstance(part, dict) and "class_path" in part:
            part["class_path"] = qualified(part["class_path"])
            inner = part.get("init_args")
            if isinstance(inner, dict) and not is_theirs(part["class_path"]):  # there `attack` may be any text
                for key in {*_KEYS} & {*inner}:
                    names = inner[key]
                    inner[key] = [qualified(name) for name in names] if isinstance(names, list) else qualified(names)
    return value


def is_theirs(class_path: object) -> bool:
    """Whether it is a class or function of the user, by its import path.

    Example:
        >>> is_theirs("my_project.Photos"), is_theirs("pgd"), is_theirs("lightning_attack.attacks.pgd")
        (True, False, False)
    """
    return "." in str(class_path) and not str(class_path).startswith("lightning_attack.")


def accept_presets() -> None:
    """Let parsers read YAML so. The parser loads files of parts, such as an attack's, itself."""
    load = get_loader("yaml")
    if not hasattr(load, "plain"):

        def loader(text: str) -> Any:
            return with_presets(load(text))

        loader.plain = load  # type: ignore[attr-defined]
        set_loader("yaml", loader, exceptions=(yaml.YAMLError,))

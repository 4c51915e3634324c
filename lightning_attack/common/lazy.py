"""Names of a package that are imported when they are first asked for, so that the package itself costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` (PEP 562) of a package whose names live in other modules.

    Args:
        package: its `__name__`.
        homes: for each name the module that defines it.

    Example:
        >>> __getattr__, __dir__ = lazy_names(__name__, {"OrderedDict": "collections"})
        >>> __getattr__("OrderedDict").__name__, "OrderedDict" in __dir__()
        ('OrderedDict', True)
        >>> __getattr__("Dictionary")
        Traceback (most recent call last):
            ...
        AttributeError: module 'lightning_attack.common.lazy' has no attribute 'Dictionary'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # so that the next look does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names

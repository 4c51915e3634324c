"""Objects of the user by their import paths."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def imported(path: str) -> Any:
    """The object at an import path such as `mynet.MyNet` or `mynet.MyNet.build`.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such object.

    Example:
        >>> imported("math.pi"), imported("pathlib.Path.home").__name__
        (3.141592653589793, 'home')
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module or "." not in module:
            raise
        return getattr(imported(module), name)  # a method: `module` is a class

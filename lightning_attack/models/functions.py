"""Functions of the user that build a network, and do not say what they return."""

from __future__ import annotations

import re
from inspect import isfunction
from typing import Any

from torch import nn

from lightning_attack.common.imports import imported

_REFUSED = re.compile(r"Import path ([\w.]+) does not correspond to a subclass of Module")


def accept_functions(message: str) -> bool:
    """Say in the place of functions that a parser has refused that they return a network; whether there were any.

    jsonargparse takes a function in the place of a class if its annotation says that it returns one. Many functions
    that build a network have none; what they return is seen when it is used.

    Args:
        message: of jsonargparse; may have line breaks.

    Example:
        >>> accept_functions("unrecognized arguments: --colour=red")
        False
    """
    found = False
    for path in _REFUSED.findall(" ".join(message.split())):
        function = imported(path)
        if isfunction(function) and function.__annotations__.get("return", Any) is Any:
            function.__annotations__["return"] = nn.Module
            found = True
    return found

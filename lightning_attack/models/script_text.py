"""`script_text`: what a network of TorchScript computes, as text that does not depend on where it was loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from lightning_attack.engine.content import content

_NOTED = re.compile(r"\.___torch_mangle_\d+| +# .*$", re.MULTILINE)
"""What torch adds to names of types so that no two are equal, and the lines of code that it notes."""
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


def script_text(network: torch.jit.ScriptModule) -> str | None:
    """The operations of its forward with all that it calls, its constants, and the values that it reads.

    Parameters and buffers are left out, which have names elsewhere; None where a part has no forward of its own.

    Example:
        >>> import warnings
        >>> class Scaled(torch.nn.Module):
        ...     def __init__(self, factor):
        ...         super().__init__()
        ...         self.factor = factor
        ...     def forward(self, x):
        ...         return self.factor * x
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     half, twice = (torch.jit.trace(Scaled(factor), torch.ones(1)) for factor in (0.5, 2.0))
        >>> script_text(half) == script_text(twice), script_text(half) == script_text(half)
        (False, True)
    """
    try:
        graph: Any = network.inlined_graph
    except (AttributeError, RuntimeError):
        return None
    constants = [
        _said(node.t("value"))
        for node in graph.findAllNodes("prim::Constant")
        if node.hasAttribute("value") and node.kindOf("value") == "t"
    ]
    names = sorted({node.s("name") for node in graph.findAllNodes("prim::GetAttr")})
    return "\n".join([_NOTED.sub("", str(graph)), *constants, *_read(network, names)])


def _read(network: torch.jit.ScriptModule, names: list[str]) -> Iterator[str]:
    """The values of these names in all parts of a network that are neither parameters nor buffers nor parts."""
    for place, part in network.named_modules():
        inside: Any = part
        for name in names:
            if name in inside._parameters or name in inside._buffers or not inside._c.hasattr(name):
                continue
            value = inside._c.getattr(name)
            if isinstance(value, (Tensor, *_PLAIN)):
                yield f"{place}.{name} = {_said(value)}"


def _said(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{tuple(value.shape)} {value.dtype} {blake2b(content(value), digest_size=8).hexdigest()}"

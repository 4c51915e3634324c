"""`fingerprint`: a hash of a network, to tell whether two networks are the same without running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from types import BuiltinFunctionType, FunctionType

import torch
from torch import fx, nn

from lightning_attack.common.network_hash import CURRENT, SECOND, WIDER
from lightning_attack.common.user_code import is_users
from lightning_attack.common.user_values import has_text, source_file, value_text
from lightning_attack.engine.content import content
from lightning_attack.models.graph_text import graph_text
from lightning_attack.models.script_text import script_text
from lightning_attack.models.wrapper import SegmentationModel

_NAMES = ("name", "classes", "metadata")
"""Settings of a `SegmentationModel` that say what it is called, and change no result."""
_ENGINE = ("fast", "is_worth")
"""What engines attach to a `SegmentationModel`: how it is run, not what it is."""
_GUARDS = "GuardsFn"
"""Class of a module that recent versions of torch put beside a graph: conditions on its inputs."""
_PLACES = ("name_or_path", "warnings_issued")
"""What transformers notes in its networks about where they lie and what it has said of them."""


def fingerprint(network: nn.Module) -> str:
    """A hash of a network's modules with their settings, of its tensors, and of its graphs, as exported networks have.

    It is the same in every process and on every machine, whatever the network and its classes are called, and whatever
    engine runs it: `v3:` and 16 hexadecimal digits. It begins with `v4:` where it covers more than the hashes of
    earlier versions did: what networks of TorchScript compute, and tensors, arrays, functions and private numbers and
    texts that modules of the user's classes keep as attributes.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> fingerprint(layer) == fingerprint(layer), fingerprint(layer) == fingerprint(nn.Linear(2, 1))
        (True, False)
        >>> fingerprint(SegmentationModel(layer, name="a")) == fingerprint(SegmentationModel(layer, name="b"))
        True
    """
    more = {module: _more(module) for module in network.modules()}

    def whole(module: nn.Module) -> dict[str, object] | None:
        settings = _with_graph(module)
        return None if settings is None else settings | more[module]

    return (WIDER if any(more.values()) else CURRENT) + _hash(network, whole)


def narrower_fingerprint(network: nn.Module) -> str:
    """The hash of version `v3:`, which did not know what `v4:` covers besides."""
    return CURRENT + _hash(network, _with_graph)


def earlier_fingerprint(
    network: nn.Module, name: str | None = None, noted: Mapping[str, object] | None = None, named: bool = True
) -> str:
    """The hash that earlier versions gave a network, which depended on its engine, and at first on its name too.

    Args:
        network: the network.
        name: what it was called then; None: what it is called now.
        noted: what an engine of theirs noted in the networks that hold no others; in those that do it left `fast`.
            None: there was no engine.
        named: whether names count, and the hash has no prefix; otherwise it begins with `v2:`.
    """

    def settings(module: nn.Module) -> dict[str, object]:
        found = simple_settings(module) if named else _deciding(module)
        if isinstance(module, SegmentationModel):
            holds = any(isinstance(inner, SegmentationModel) for inner in module.network.modules())
            found = {key: value for key, value in found.items() if key not in _ENGINE}
            if noted is not None:
                found |= {"fast": None} if holds else noted
        return found | {"name": name} if module is network and name and "name" in found else found

    return ("" if named else SECOND) + _hash(network, settings)


def _hash(network: nn.Module, settings_of: Callable[[nn.Module], dict[str, object] | None]) -> str:
    """The hash by the settings of each module; a module that has None of them is left out."""
    digest = blake2b(digest_size=8)
    for name, module in network.named_modules():
        if (found := settings_of(module)) is None:
            continue
        settings = found | {"training": False}
        digest.update(f"{name} {type(module).__name__} {dict(sorted(settings.items()))}".encode())
    for name, tensor in sorted([*network.named_parameters(), *network.named_buffers()]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(content(tensor))
    return digest.hexdigest()


def _deciding(module: nn.Module) -> dict[str, object]:
    """The simple settings of a module, without what it is called and where it comes from."""
    settings = {key: value for key, value in simple_settings(module).items() if key not in _PLACES}
    if not isinstance(module, SegmentationModel):
        return settings
    recipe = settings.get("recipe")  # of networks of smp
    if isinstance(recipe, dict):
        settings["recipe"] = {key: value for key, value in recipe.items() if key != "name"}
    return {key: value for key, value in settings.items() if key not in (*_NAMES, *_ENGINE)}


def _with_graph(module: nn.Module) -> dict[str, object] | None:
    """The same; of a graph what it computes, in place of what versions of torch note beside it."""
    if isinstance(module, fx.GraphModule):
        return {"graph": graph_text(module.graph)}
    return None if type(module).__name__ == _GUARDS else _deciding(module)


def _more(module: nn.Module) -> dict[str, object]:
    """What hashes cover besides since `v4:`: what TorchScript computes, and what the user's modules keep."""
    if isinstance(module, torch.jit.ScriptModule):
        text = script_text(module)
        return {} if text is None else {"script": text}
    return _kept(module) if is_users(source_file(type(module))) else {}


def _kept(module: nn.Module) -> dict[str, object]:
    """Tensors, arrays and functions of a module, private numbers and texts; not what is counted or cached in it."""
    found: dict[str, object] = {}
    for name, value in sorted(vars(module).items()):
        is_public = name[0] != "_" and name not in _ENGINE
        if is_public and has_text(value) and not _is_simple(value) and not isinstance(value, nn.Module):
            found[name] = value_text(value)
        elif is_public and isinstance(value, FunctionType | BuiltinFunctionType):
            found[name] = f"{value.__module__}.{value.__qualname__}"
        elif name[0] == "_" and isinstance(value, float | str):
            found[name] = repr(value)
    return found


def simple_settings(module: nn.Module) -> dict[str, object]:
    """The settings of a module that are plain values, by name; private ones and its mode are left out.

    Example:
        >>> simple_settings(nn.Dropout(0.5))
        {'inplace': False, 'p': 0.5}
    """
    known = sorted(vars(module).items())
    return {key: value for key, value in known if key[0] != "_" and key != "training" and _is_simple(value)}


def _is_simple(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(map(_is_simple, [*value, *value.values()]))
    return value is None or isinstance(value, bool | int | float | str)

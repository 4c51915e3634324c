"""`fingerprint`: a hash of a network, to tell whether two networks are the same without running them."""

from __future__ import annotations

from hashlib import blake2b

from torch import nn

from lightning_attack.engine.content import content


def fingerprint(network: nn.Module) -> str:
    """A hash of a network's modules with their settings, and of its tensors: 16 hexadecimal digits.

    It is the same in every process and on every machine.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> fingerprint(layer) == fingerprint(layer), fingerprint(layer) == fingerprint(nn.Linear(2, 1))
        (True, False)
    """
    digest = blake2b(digest_size=8)
    for name, module in network.named_modules():
        settings = simple_settings(module) | {"training": False}
        digest.update(f"{name} {type(module).__name__} {dict(sorted(settings.items()))}".encode())
    for name, tensor in sorted([*network.named_parameters(), *network.named_buffers()]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(content(tensor))
    return digest.hexdigest()


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

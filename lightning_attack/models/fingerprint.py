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
        settings = {key: value for key, value in sorted(vars(module).items()) if _is_simple(value) and key[0] != "_"}
        digest.update(f"{name} {type(module).__name__} {settings | {'training': False}}".encode())
    for name, tensor in sorted([*network.named_parameters(), *network.named_buffers()]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(content(tensor))
    return digest.hexdigest()


def _is_simple(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(map(_is_simple, [*value, *value.values()]))
    return value is None or isinstance(value, bool | int | float | str)

"""Files of weights and of Python where a configuration is expected, found before the parser tries to read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.meant import NETWORK_KEYS, WEIGHT_FILES, weights_answer
from lightning_attack.cli.preset_names import is_theirs

_NAMED = ("targets", "networks", "members")
"""Keys below which networks stand, by name or in a list."""


def refuse_files(path: list[str], node: yaml.Node | None, in_file: bool) -> None:
    """Raise `UsageError` if a file of weights or of Python stands where a network, an attack or settings belong.

    Args:
        path: the keys that lead to the node, such as `["model", "source"]`.
        node: what stands there.
        in_file: whether it is said in a file, not on the command line.
    """
    for keys, value in scalars(path, node, set()):
        before, last = ["", "", *keys][-2:]
        # On the command line arguments of a class of the user may have these names too: --model.source.network.
        ours = in_file or len(keys) <= 2
        network = before in _NAMED or (ours and last in NETWORK_KEYS)
        attack = ours and (last in ("attack", "attacks") or before == "attacks")
        if (network or attack) and "\n" not in value:
            refuse_python(value)
            if is_weights(Path(value)):
                raise UsageError(weights_answer(".".join(keys), value, network, in_file))


def refuse_python(value: str) -> None:
    """Raise `UsageError` for a file of Python, of which a class or function is meant.

    Example:
        >>> refuse_python("my/net.py")
        Traceback (most recent call last):
            ...
        lightning_attack.cli.errors.UsageError: 'my/net.py' is a file of Python, not of settings
        give a class or function in it by its import path: net.NAME (with 'my' on PYTHONPATH)
    """
    path = Path(value)
    if path.suffix == ".py":
        folder = f" (with '{path.parent}' on PYTHONPATH)" if path.parent != Path() else ""
        raise UsageError(
            f"'{value}' is a file of Python, not of settings\n"
            f"give a class or function in it by its import path: {path.stem}.NAME{folder}"
        )


def is_weights(path: Path) -> bool:
    """Whether it is a file with the tensors or the program of a network, by its first bytes or its name."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(9)
    except (OSError, ValueError):  # text that is no path
        return False
    safetensors = start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    return path.suffix in WEIGHT_FILES or safetensors or start.startswith((b"PK\x03\x04", b"\x80\x02"))


def scalars(keys: list[str], node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[list[str], str]]:
    """All plain values, with the keys that lead to them; those of lists with the key of the list twice.

    Without the settings of classes of the user, where any file may stand.
    """
    if id(node) in seen:  # an alias to itself
        return
    if isinstance(node, yaml.ScalarNode):
        yield keys, node.value
    elif isinstance(node, yaml.MappingNode):
        seen.add(id(node))
        theirs = any(key.value == "class_path" and is_theirs(value.value) for key, value in node.value)
        for key, value in node.value:
            if theirs and key.value in ("init_args", "dict_kwargs"):
                continue  # an argument called `network` may well be a file
            yield from scalars([*keys, *str(key.value).split(".")], value, seen)
    elif isinstance(node, yaml.SequenceNode):
        seen.add(id(node))
        for value in node.value:
            yield from scalars([*keys, keys[-1]] if keys else ["-"], value, seen)

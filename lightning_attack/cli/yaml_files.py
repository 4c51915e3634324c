"""Checks of YAML files before the parser sees them: is it YAML, and does no mapping have a key twice?

PyYAML takes the last of two equal keys and drops the first without a word; a run would then be another than the one
that its file shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_attack.cli.errors import UsageError
from lightning_attack.common.configs import attack_names

_MERGE = "tag:yaml.org,2002:merge"
TEXT = "tag:yaml.org,2002:str"
"""YAML's tag of strings."""


def check_yaml(file: Path) -> None:
    r"""Check a YAML file.

    Raises:
        UsageError: it is not text, not YAML, or a mapping in it has a key twice; with file, lines, and both values.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "run.yaml"
        ...     _ = file.write_text("model: {seed: 1}\ndata:\n  limit: 2\nmodel: {seed: 3}\n")
        ...     try:
        ...         check_yaml(file)
        ...     except UsageError as error:
        ...         print(str(error).replace(folder, "FOLDER"))
        'model' stands twice in 'FOLDER/run.yaml', lines 1 and 4
        the values are '{seed: 1}' and '{seed: 3}'; remove one, or join them
    """
    try:
        text = file.read_text("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"'{file}' is not a text file in UTF-8 ({error})") from error
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"'{file}'{place} is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"'{file}' is not YAML: {' '.join(str(error).split())}") from error
    for whole, part in _dotted(root, set()):
        raise UsageError(
            f"'{whole.value}' and '{part.value}' stand side by side in '{file}', lines {whole.start_mark.line + 1} and "
            f"{part.start_mark.line + 1}, and one would replace the other\n"
            f"write '{part.value.removeprefix(whole.value + '.')}' inside '{whole.value}' (of a class, below init_args)"
        )
    for first, second in _twice(root, set()):
        lines = first[0].start_mark.line + 1, second[0].start_mark.line + 1
        where = f"lines {lines[0]} and {lines[1]}" if lines[0] != lines[1] else f"line {lines[0]}"
        values = " and ".join(f"'{_shortened(text, value)}'" for _, value in (first, second))
        raise UsageError(
            f"'{first[0].value}' stands twice in '{file}', {where}\nthe values are {values}; remove one, or join them"
        )


def network_names(networks: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The keys of a mapping of networks by name."""
    inner = networks.value if isinstance(networks, yaml.MappingNode) else ()
    return [key for key, _ in inner if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE]


def preset_paths(node: yaml.Node | None) -> list[tuple[yaml.ScalarNode, str]]:
    """Each `class_path` that is the name of a preset, such as `pgd`, with the path by which it can be imported."""
    if isinstance(node, yaml.SequenceNode):
        return [found for value in node.value for found in preset_paths(value)]
    found: list[tuple[yaml.ScalarNode, str]] = []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "class_path" and isinstance(value, yaml.ScalarNode) and value.value in attack_names():
            found.append((value, f"lightning_attack.attacks.{value.value}"))
        found += preset_paths(value)
    return found


def read_study(file: Path) -> Any:
    """The content of a study's file, in which networks are called by text: `101` and `yes` are names too."""
    root = yaml.compose(file.read_text("utf-8-sig"), Loader=yaml.SafeLoader)
    content = root.value if isinstance(root, yaml.MappingNode) else ()
    for key, value in content:
        names = network_names(value) if key.value == "networks" else []
        if key.value in ("sources", "targets") and isinstance(value, yaml.SequenceNode):
            names = [name for name in value.value if isinstance(name, yaml.ScalarNode)]
        for name in names:
            name.tag = TEXT
    for preset, path in preset_paths(root):
        preset.value = path
    loader = yaml.SafeLoader("")
    return None if root is None else loader.construct_document(root)


_Entry = tuple[yaml.ScalarNode, yaml.Node]


def _twice(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[_Entry, _Entry]]:
    """Pairs of entries of a mapping, at any depth, that have the same key."""
    if node is None or id(node) in seen:  # an alias leads to a node that was looked at
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value, seen)
    elif isinstance(node, yaml.MappingNode):
        known: dict[tuple[str, str], _Entry] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if (key.tag, key.value) in known:
                    yield known[key.tag, key.value], (key, value)
                known[key.tag, key.value] = key, value
            yield from _twice(value, seen)


def _dotted(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[yaml.ScalarNode, yaml.ScalarNode]]:
    """Keys of one mapping of which one is a part of the other, such as `attack` and `attack.eps`."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _dotted(value, seen)
    elif isinstance(node, yaml.MappingNode):
        keys = {key.value: key for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
        for name, key in keys.items():
            parts = name.split(".")
            wholes = (".".join(parts[:count]) for count in range(1, len(parts)))
            yield from ((keys[whole], key) for whole in wholes if whole in keys)
        for _, value in node.value:
            yield from _dotted(value, seen)


def _shortened(text: str, node: yaml.Node, most: int = 40) -> str:
    value = " ".join(text[node.start_mark.index : node.end_mark.index].split())
    return value if len(value) <= most else f"{value[:most]}..."

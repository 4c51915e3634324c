"""Checks of YAML files before the parser sees them: is it YAML, and does no mapping have a key twice?

PyYAML takes the last of two equal keys and drops the first without a word; a run would then be another than the one
that its file shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.meant import weights_answer
from lightning_attack.cli.preset_names import with_presets
from lightning_attack.cli.weight_files import is_weights, refuse_files, refuse_python, scalars
from lightning_attack.common.configs import find_config

_MERGE = "tag:yaml.org,2002:merge"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_NAMED_BY_USERS = ("networks", "targets", "attacks")
"""Keys of mappings whose keys are names of the user's choice."""
YAML = (".yaml", ".yml")
"""Suffixes of configuration files."""
TEXT = "tag:yaml.org,2002:str"
"""YAML's tag of strings."""


def check_yaml(file: Path, above: Sequence[Path] = ()) -> yaml.Node | None:
    r"""The content of a YAML file as nodes, checked with the files that it names; None if it is empty.

    Args:
        file: to check.
        above: the files that lead to it, each named by the one before.

    Raises:
        UsageError: it is not text, not YAML, or a mapping in it has a key twice, or as a whole and in parts (`attack`
            and `attack.eps`), or a value is a number in a form that YAML takes for another one (`010` for 8, `1:30`
            for 90); with file, lines and values. Or it names a file that is empty.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "run.yaml"
        ...     _ = file.write_text("model: {seed: 1}\ndata:\n  limit: 2\nmodel: {seed: 3}\n")
        ...     try:
        ...         _ = check_yaml(file)
        ...     except UsageError as error:
        ...         print(str(error).replace(folder, "FOLDER"))
        'model' stands twice in 'FOLDER/run.yaml', lines 1 and 4
        the values are '{seed: 1}' and '{seed: 3}'; remove one, or join them
    """
    refuse_python(str(file))
    if is_weights(file):
        raise UsageError(weights_answer("config", str(file), network=False))
    try:
        text = file.read_text("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"'{file}' is not a text file in UTF-8 ({error})") from error
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        tab = "\nindent with spaces: YAML takes no tabs there" if "'\\t'" in str(error.problem) else ""
        raise UsageError(f"'{file}'{place} is not YAML: {error.problem or error.context}{tab}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"'{file}' is not YAML: {' '.join(str(error).split())}") from error
    refuse_files([], root, in_file=True)
    for whole, part in _in_parts(root):
        raise UsageError(
            f"'{whole.value}' and '{part.value}' stand side by side in '{file}', lines {whole.start_mark.line + 1} and "
            f"{part.start_mark.line + 1}, and one would replace the other\n"
            f"write '{part.value.removeprefix(whole.value + '.')}' inside '{whole.value}' (of a class, below init_args)"
        )
    for key, value in _other_numbers(root):
        name, number = key.value, yaml.SafeLoader("").construct_document(value)
        kind = "a number to the base 60" if ":" in value.value else "an octal number"
        raise UsageError(
            f"'{name}: {value.value}' in '{file}', line {value.start_mark.line + 1}, is {number} to YAML ({kind})\n"
            f"write {name}: {number} for this number, or {name}: '{value.value}' for text"
        )
    for first, second in _twice(root):
        lines = first[0].start_mark.line + 1, second[0].start_mark.line + 1
        where = f"lines {lines[0]} and {lines[1]}" if lines[0] != lines[1] else f"line {lines[0]}"
        values = " and ".join(f"'{_shortened(text, value)}'" for _, value in (first, second))
        raise UsageError(
            f"'{first[0].value}' stands twice in '{file}', {where}\nthe values are {values}; remove one, or join them"
        )
    check_named(root, file.parent, [*above, file])
    return root


def check_named(root: yaml.Node | None, folder: Path, above: Sequence[Path] = ()) -> None:
    """Check the files of YAML that a configuration names for its parts, see `check_yaml`.

    Args:
        root: the configuration.
        folder: of its file, in which the parser looks for others.
        above: the files that lead to it; one that names itself is left to the parser.
    """
    for keys, value in scalars([], root, set()):
        file = find_config(value, [folder]) if Path(value).suffix in YAML else None
        if file and file not in above and check_yaml(file, above) is None:
            raise UsageError(
                f"'{file}' has no settings\nfill it, or remove the line at '{'.'.join(keys)}' that names it"
            )


def network_names(networks: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The keys of a mapping of networks by name."""
    return [key for key, _ in _keys(networks)] if isinstance(networks, yaml.MappingNode) else []


def listed_names(names: yaml.Node) -> list[yaml.ScalarNode]:
    """The plain values of a list."""
    values = names.value if isinstance(names, yaml.SequenceNode) else ()
    return [name for name in values if isinstance(name, yaml.ScalarNode)]


def class_names(root: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The names of classes in the settings of data sets."""
    data = at(root, ("data",))
    sets = [value for _, value in _keys(data)] if isinstance(data, yaml.MappingNode) else []
    lists = [at(one, keys) for one in sets for keys in (("classes",), ("init_args", "classes"))]
    return [name for one in lists if one is not None for name in listed_names(one)]


def read_study(file: Path) -> Any:
    """The content of a study's file, in which networks are called by text: `101` and `yes` are names too.

    Raises:
        UsageError: see `check_yaml`.
    """
    root = check_yaml(file)
    content = root.value if isinstance(root, yaml.MappingNode) else ()
    for key, value in content:
        names = network_names(value) if key.value == "networks" else []
        if key.value in ("sources", "targets"):
            names = listed_names(value)
        for name in names:
            name.tag = TEXT
    for name in class_names(root):
        name.tag = TEXT
    return None if root is None else with_presets(yaml.SafeLoader("").construct_document(root))


def at(node: yaml.Node | None, keys: Sequence[str]) -> yaml.Node | None:
    """The node at a nested key; None where there is none."""
    for key in keys:
        inner = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for name, value in inner if name.value == key), None)
    return node


_Entry = tuple[yaml.ScalarNode, yaml.Node]


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """All mappings, at any depth, each once however many aliases lead to it."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [value for _, value in reversed(node.value)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)


def _keys(mapping: yaml.MappingNode) -> Iterator[_Entry]:
    """The entries of a mapping whose keys are plain values."""
    return ((key, value) for key, value in mapping.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE)


def _twice(root: yaml.Node | None) -> Iterator[tuple[_Entry, _Entry]]:
    """Pairs of entries of one mapping that have the same key."""
    for mapping in _mappings(root):
        known: dict[tuple[str, str], _Entry] = {}
        for key, value in _keys(mapping):
            if (key.tag, key.value) in known:
                yield known[key.tag, key.value], (key, value)
            known[key.tag, key.value] = key, value


def _other_numbers(root: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.ScalarNode]]:
    """Entries with a number that YAML 1.1 reads to the base 8 or 60, which hardly anybody means."""
    for mapping in _mappings(root):
        for key, value in _keys(mapping):
            if not isinstance(value, yaml.ScalarNode) or value.style or value.tag not in _NUMBERS:
                continue
            if re.fullmatch(r"[-+]?(0[0-9_]+|[^:]+:.+)", value.value):
                yield key, value


def _in_parts(root: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.ScalarNode]]:
    """Keys of one mapping of which one is a part of the other, such as `attack` and `attack.eps`."""
    by_users = {
        id(value) for one in _mappings(root) for key, value in _keys(one) if key.value.split(".")[-1] in _NAMED_BY_USERS
    }
    for mapping in _mappings(root):
        keys = {key.value: key for key, _ in _keys(mapping)} if id(mapping) not in by_users else {}
        for name, key in keys.items():
            words = name.split(".")
            wholes = (".".join(words[:count]) for count in range(1, len(words)))
            yield from ((keys[whole], key) for whole in wholes if whole in keys)


def _shortened(text: str, node: yaml.Node, most: int = 40) -> str:
    value = " ".join(text[node.start_mark.index : node.end_mark.index].split())
    return value if len(value) <= most else f"{value[:most]}..."

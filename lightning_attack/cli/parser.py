"""The parser of all commands that take configurations: short help, mistakes in two lines, files found anywhere."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_attack.cli.errors import UsageError, explain
from lightning_attack.cli.help import HelpFormatter
from lightning_attack.cli.internals import forget_other_classes, option_names
from lightning_attack.cli.parts import PARTS, inner_options
from lightning_attack.cli.preset_names import accept_presets, qualified
from lightning_attack.cli.program import program
from lightning_attack.cli.untyped import check_arguments
from lightning_attack.cli.weight_files import refuse_files, refuse_python
from lightning_attack.cli.yaml_files import (
    TEXT,
    YAML,
    at,
    check_named,
    check_yaml,
    class_names,
    listed_names,
    network_names,
)
from lightning_attack.common.configs import find_attack, find_config
from lightning_attack.models.functions import accept_functions

__all__ = ["Parser", "UsageError", "with_paths"]


class _FunctionError(UsageError):
    """The parser has refused a function; it would accept it now."""


class Parser(LightningArgumentParser):
    """LightningCLI's parser with short help, and a `UsageError` of two lines where a mistake was made.

    Attributes:
        instantiators: `(function, class, whether subclasses too)`: the functions make the objects of these classes.
    """

    instantiators: Sequence[tuple[Any, type, bool]] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        # Beginnings of options are none: --seed would be --seed_everything, which is not the seed of attacks.
        ours: dict[str, Any] = {"formatter_class": HelpFormatter, "prog": program(), "allow_abbrev": False}
        accept_presets()
        forget_other_classes()
        self._here = Path.cwd()  # the parser changes to the folder of a file while it reads it
        super().__init__(*args, **(ours | options))

    def add_class_arguments(self, *args: Any, skip: Collection[str] | None = None, **options: Any) -> Any:
        """As the base class, without the arguments that only programs can set."""
        return super().add_class_arguments(*args, skip={*(skip or ()), "clean_cache"}, **options)

    def parse_args(self, *args: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """As the base class; functions that build a network need not say so."""
        return self._again(super().parse_args, *args, **options)

    def parse_object(self, *args: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """As `parse_args`."""
        return self._again(super().parse_object, *args, **options)

    @staticmethod
    def _again(parse: Callable[..., Namespace], *args: Any, **options: Any) -> Namespace:
        """Parse once more as long as the parser refuses a function that only lacks its annotation."""
        while True:
            try:
                return parse(*args, **options)
            except _FunctionError:
                continue

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        if accept_functions(message):
            raise _FunctionError
        options = option_names(self)
        raise UsageError(explain(message, options | inner_options(options), PARTS))

    def parse_string(self, content: str, *args: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """As the base class, which passes the content of files too; names of attacks and networks are text."""
        return super().parse_string(_as_meant(content, self._here), *args, **options)

    def instantiate_classes(self, cfg: Namespace, **options: Any) -> Namespace:  # type: ignore[override]
        """What LightningCLI calls; jsonargparse calls it `instantiate` by now."""
        check_arguments(cfg.get(cfg.get("subcommand", ""), cfg))
        if self.instantiators:
            options["instantiators"] = list(self.instantiators)
        return self.instantiate(cfg, **options)


def with_paths(words: Iterable[str]) -> list[str]:
    """The words of a command line, in which the package's files are given by paths that hold in any folder.

    The value of `-c` and `--config`, and of options whose last name is `attack` or `attacks`, becomes the path of the
    package's file where the user has none of that path. `--model.attack` takes the name of an attack too.

    Example:
        >>> with_paths(["predict", "--data.limit=3"])
        ['predict', '--data.limit=3']
        >>> from pathlib import Path
        >>> option, _, path = with_paths(["--model.attack=PGD"])[0].partition("=")
        >>> option, Path(path).parts[-2:]
        ('--model.attack', ('attacks', 'pgd.yaml'))
    """
    found: list[str] = []
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        if option:  # its value is a word of its own
            _warn_of_order(found, option, value := _value(option, word))
            found.append(value)
            option = ""
        elif equals and name.startswith("-"):
            value = _value(name, value)
            _warn_of_order(found, name, value)
            found.append(f"{name}={value}")
        else:
            option = word if _kind(word) or _is_part(word) else ""
            found.append(word)
    return found


def _warn_of_order(before: Sequence[str], option: str, value: str) -> None:
    """Warn if an option names a whole part, such as an attack, and settings of it come before, which it may drop."""
    lost = next((word for word in before if word.startswith(f"{option}.")), None) if _is_part(option) else None
    if lost:
        whole = option == "--model.attack" and Path(value).suffix in YAML
        effect = "has no effect" if whole else "may have no effect"
        why = "sets all settings of the attack anew" if whole else "begins anew where it names another class"
        warnings.warn(f"{lost} {effect}: it comes before {option}, which {why}; put it after {option}", stacklevel=2)


def _is_part(option: str) -> bool:
    """Whether an option takes a class or several, such as `--data.dataset`."""
    return option[:2] == "--" and option.rpartition(".")[2] in PARTS


def _kind(option: str) -> str:
    """What an option takes: a `file`, an `attack` by name or path, the `path` of one, or something else."""
    if option in ("-c", "--config"):
        return "file"
    if option == "--model.attack":
        return "attack"
    return "path" if option.rstrip("+").rpartition(".")[2] in ("attack", "attacks") and option[:2] == "--" else ""


def _value(option: str, value: str, folders: Sequence[Path] = (Path(),)) -> str:
    """The value of an option; files of the package, and an attack's in these folders, by paths that hold anywhere."""
    kind = _kind(option)
    if kind == "file":
        refuse_python(value)  # of weights below
    elif option.startswith("-"):
        refuse_files(option.strip("-+").split("."), _composed(value), in_file=False)
    if kind and not (kind == "attack" and _is_attack_class(value)):
        found = find_attack(value, folders) if kind == "attack" else find_config(value, folders)
        value = value if found is None else str(found)
    # A configuration may also be written out, `-c "{...}"`, which is too long for a path.
    named = not value.startswith("{") if kind == "file" else Path(value).suffix in YAML
    if named and Path(value).is_file():
        root = check_yaml(Path(value))
        if kind or _is_part(option) or "." not in option:  # other options may take a file as such
            _check_settings(value, root, kind)
    elif option.startswith("-"):
        check_named(_composed(value), Path())
    if re.fullmatch(r"--model\.attack\..*\b(attacks?|class_path)\+?|--model\.attack\.class_path", option):
        names = _composed(value)
        inner = listed_names(names) if names is not None else []
        return _rewritten(value, [(name, qualified(name.value)) for name in inner]) if inner else qualified(value)
    return _as_texts(value) if re.fullmatch(r"--classes|--data\..+\.classes", option) else value


def _check_settings(file: str, root: yaml.Node | None, kind: str) -> None:
    """Raise `UsageError` for a file with nothing in it, and for one of settings of a run that has none."""
    if kind == "file" and isinstance(root, yaml.MappingNode):
        if root.value and all(value.tag == "tag:yaml.org,2002:null" for _, value in root.value):
            raise UsageError(f"'{root.value[0][0].value}' is empty in '{file}'\nremove the line, or fill it")
    elif root is None or kind == "file":
        such = {"file": "data: {batch_size: 2}", "attack": "class_path: pgd", "path": "class_path: pgd"}
        example = f": expected lines such as\n{such[kind]}" if kind else ""
        raise UsageError(f"'{file}' {'has no settings' if root is None else 'is no file of settings'}{example}")


def _as_texts(value: str) -> str:
    """A list of names in which YAML would take `yes` and `1` for a truth value and a number, with these as text."""
    root = _composed(value)
    if not isinstance(root, yaml.SequenceNode):
        return value
    return _rewritten(value, [(name, name.value) for name in listed_names(root) if name.tag != TEXT])


def _composed(value: str) -> yaml.Node | None:
    try:
        return yaml.compose(value, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None  # the parser says what is wrong


def _is_attack_class(name: str) -> bool:
    """Whether it is exactly the name of a class, such as `APGD`, which is not its preset `apgd`."""
    return any(part.__name__ == name for part in PARTS["attack"] if isinstance(part, type))


def _as_meant(content: str, here: Path) -> str:
    """The text of a configuration in which an attack's name is the path of its file, and names of networks are text.

    YAML takes the keys `101` and `yes` for a number and a truth value. Nothing else of the text changes.

    Args:
        content: of a file, in whose folder the process is now.
        here: the folder where the command was given; an attack's file may be there too.
    """
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return content  # the parser says what is wrong
    texts = [*network_names(at(root, ("model", "targets"))), *class_names(root)]
    changes = [(name, name.value) for name in texts if name.tag != TEXT]
    attack = at(root, ("model", "attack"))
    if (
        isinstance(attack, yaml.ScalarNode)
        and (value := _value("--model.attack", attack.value, (Path(), here))) != attack.value
    ):
        changes.append((attack, value))
    return _rewritten(content, changes)


def _rewritten(content: str, changes: Iterable[tuple[yaml.Node, str]]) -> str:
    """The text with some of its nodes replaced; those to which several aliases lead, once."""
    once = {node.start_mark.index: (node, value) for node, value in changes}
    for _, (node, value) in sorted(once.items(), reverse=True):
        content = f"{content[: node.start_mark.index]}{json.dumps(value)}{content[node.end_mark.index :]}"
    return content

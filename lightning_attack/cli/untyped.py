"""Arguments without a type: the parser takes them to be optional, and passes None for those that are not given."""

from __future__ import annotations

from inspect import Parameter, signature

from jsonargparse import Namespace

from lightning_attack.cli.errors import UsageError
from lightning_attack.common.imports import imported


def check_arguments(config: object, key: str = "") -> None:
    """Raise `UsageError` if a class or function of a configuration lacks an argument that it needs.

    Args:
        config: a part of a configuration.
        key: where it stands, such as `model.source`.

    Example:
        >>> check_arguments(Namespace(source=Namespace(class_path="inspect.cleandoc", init_args=Namespace(doc=None))))
        Traceback (most recent call last):
            ...
        lightning_attack.cli.errors.UsageError: source: inspect.cleandoc needs doc
        give --source.doc=VALUE, or give it a default
    """
    parts = vars(config) if isinstance(config, Namespace) else config
    if isinstance(parts, list):
        parts = dict(enumerate(parts))
    if not isinstance(parts, dict):
        return
    for name, part in parts.items():
        check_arguments(part, f"{key}.{name}" if key else str(name))
    if isinstance(path := parts.get("class_path"), str) and isinstance(given := parts.get("init_args"), Namespace):
        for parameter in signature(imported(path)).parameters.values():
            needed = parameter.default is Parameter.empty and parameter.annotation is Parameter.empty
            if needed and parameter.name in given and given[parameter.name] is None:
                raise UsageError(
                    f"{key}: {path} needs {parameter.name}\ngive --{key}.{parameter.name}=VALUE, or give it a default"
                )

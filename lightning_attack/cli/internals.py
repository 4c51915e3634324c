"""What the command line needs of argparse and jsonargparse beyond their public interface, in one place.

All but `forget_other_classes` serves help and messages. Where a release lacks a name, they say less.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Iterator
from typing import Any


def option_names(parser: ArgumentParser) -> set[str]:
    """The long options of a parser and of its commands, without the dashes."""
    options = {name for one in _parsers(parser) for name in getattr(one, "_option_string_actions", ())}
    return {name.removeprefix("--") for name in options if name.startswith("--")}


def _parsers(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    yield parser
    for action in getattr(parser, "_actions", ()):
        if isinstance(action.choices, dict):  # commands by name
            yield from (one for one in action.choices.values() if isinstance(one, ArgumentParser))


def is_parser_option(action: Action) -> bool:
    """Whether the parser added an option by itself: `--model=FILE`, `--model.source.help`."""
    return type(action).__name__ in ("_ActionConfigLoad", "_ActionHelpClassPath")


def type_of(action: Action) -> Any:
    """The type that an option takes; None where it is not known."""
    return getattr(action, "_typehint", None)


def forget_other_classes() -> None:
    """Let parsers drop all settings of a class where another one takes its place.

    By itself jsonargparse keeps those that the new class accepts too: photos of the user would be read at the size of
    the default configuration's scenes, and an attack would keep a part of the budget of the one before.
    """
    from jsonargparse import _typehints  # loads what the commands without networks do without

    _typehints.discard_init_args_on_class_path_change = _forget


def _forget(parser: Any, before: Any, now: Any) -> None:
    if before and "init_args" in before and before["class_path"] != now["class_path"]:
        for key in ("init_args", "dict_kwargs"):
            before.pop(key, None)

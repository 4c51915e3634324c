"""What the command line needs of argparse and jsonargparse beyond their public interface, in one place.

All of it serves help and messages. Where a release lacks a name, they say less, and nothing else changes.
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

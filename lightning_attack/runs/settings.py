"""`settings.json`: what must be the same when a run goes on where it was stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_attack.common.atomic import atomic_write
from lightning_attack.common.network_hash import is_current
from lightning_attack.runs.errors import RunError
from lightning_attack.runs.names import SETTINGS

Earlier = Callable[[], Iterable[Mapping[str, Any]]]
"""Gives the settings of a run in the forms in which earlier versions would have written them."""
_ABSENT = "not there"
_TARGETS, _ORDER = "model.targets.", "order of model.targets"


@dataclass(frozen=True)
class Advice:
    """What a message about a folder of other settings says beside them.

    Attributes:
        remedy: what the user can do.
        files: where the networks come from, by name, as far as it is known.
    """

    remedy: str = "choose another --run_name, or --fresh=true to start over"
    files: Mapping[str, str] = field(default_factory=dict)


_OF_PREDICT = Advice()


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a file: tuples as lists, keys as strings.

    Example:
        >>> as_json({"steps": (1, 2), 3: None})
        {'steps': [1, 2], '3': None}
    """
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run into its folder."""
    with atomic_write(folder / SETTINGS) as path:
        path.write_text(json.dumps(settings, indent=2))


def check_same(
    folder: Path,
    settings: Mapping[str, Any],
    earlier: Earlier = tuple,
    advice: Advice = _OF_PREDICT,
) -> None:
    """Raise `RunError` if a folder is not that of a run with these settings; it names every one that differs.

    Args:
        folder: of the run.
        settings: as they are now.
        earlier: gives the same settings as earlier versions wrote them; called only if something differs.
        advice: for the message.
    """
    try:
        old = _plain(json.loads((folder / SETTINGS).read_text()))
        new = _plain(as_json(settings))
    except (OSError, ValueError):
        raise RunError(
            f"'{folder}' exists already and is no run that could go on (no readable {SETTINGS}); {advice.remedy}"
        ) from None
    differing = _differing(old, new)
    if differing:
        differing = min([differing, *(_differing(old, _plain(as_json(one))) for one in earlier())], key=len)
    if differing:
        lines = [f"  {_said(key, old.get(key, _ABSENT), new.get(key, _ABSENT), advice.files)}" for key in differing]
        raise RunError(f"'{folder}' is a run of other settings; {advice.remedy}:\n" + "\n".join(lines))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by keys with dots, and the order of the targets, in which records hold their figures."""
    plain = dict(flat(settings))
    return plain | {_ORDER: ", ".join(key.removeprefix(_TARGETS) for key in plain if key.startswith(_TARGETS))}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings that differ. One that an older version did not know is the same as one that is None."""
    differing = [key for key in {**new, **old} if not _alike(old.get(key), new.get(key))]
    others = any(key.startswith(_TARGETS) and not (key in old and key in new) for key in differing)
    return [key for key in differing if not (key == _ORDER and others)]


def _alike(old: object, new: object) -> bool:
    """Whether two values are equal, numbers but for the rounding of the formulas that they come from."""
    if isinstance(old, float) and isinstance(new, float):
        return old == new or math.isclose(old, new, rel_tol=1e-12)
    return old == new


def _said(key: str, before: object, now: object, files: Mapping[str, str]) -> str:
    """A setting that differs, as a line for the user."""
    kind, _, name = key.removeprefix("model.").partition(".")
    if kind == "code":
        name = name.removeprefix("attack.").removeprefix("networks.")
        return (
            f"the code of '{name}', or what it calls, is not that of before: results would be mixed with earlier ones "
            f'(comments and layout do not count; if it still does the same, remove "code" from {SETTINGS})'
        )
    if not (key.startswith("model.") and kind in ("source", "targets") and name) or _ABSENT in (before, now):
        return f"{key}: {before} before, {now} now"
    of_earlier = "" if is_current(before) else "; an earlier version, whose hashes were of another kind, made the first"
    file = f", now from '{files[name]}'," if name in files else ""
    return (
        f"'{name}' ({key}){file} is not the network of before: its weights, structure or settings are others "
        f"(hash {before} before, {now} now{of_earlier})"
    )


def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as keys with dots; lists are taken apart where they hold settings.

    Example:
        >>> dict(flat({"norm": {"eps": 0.5}, "parts": [{"class": "Momentum"}], "sizes": [1, 2]}))
        {'norm.eps': 0.5, 'parts.0.class': 'Momentum', 'sizes': [1, 2]}
    """
    if isinstance(settings, Mapping):
        items = [(str(key), value) for key, value in settings.items()]
    elif isinstance(settings, list) and any(isinstance(value, Mapping) for value in settings):
        items = [(str(place), value) for place, value in enumerate(settings)]
    else:
        yield prefix, settings
        return
    for key, value in items:
        yield from flat(value, f"{prefix}.{key}" if prefix else key)

"""`settings.json`: what must be the same when a run goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.errors import RunError
from lightning_attack.runs.names import SETTINGS

_ABSENT = "not there"


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


def check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise `RunError` if a folder is not that of a run with these settings; it names every one that differs."""
    try:
        before = json.loads((folder / SETTINGS).read_text())
        old, new = dict(flat(before)), dict(flat(as_json(settings)))
    except (OSError, ValueError):
        raise RunError(
            f"'{folder}' exists already and is no run that could go on (no readable {SETTINGS}); choose another "
            "--run_name"
        ) from None
    # A setting that an older version did not know is the same as one that is None.
    differing = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    if differing:
        lines = [f"  {key}: {old.get(key, _ABSENT)} before, {new.get(key, _ABSENT)} now" for key in differing]
        raise RunError(
            f"'{folder}' is a run of other settings; choose another --run_name, or --fresh=true to start over:\n"
            + "\n".join(lines)
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

"""`families`: targets that are one network behind one defence of several strengths, such as JPEG qualities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_Key = tuple[int, str, str]
"""A setting of a defence: which of several it is, its class, and the setting's name."""


@dataclass(frozen=True)
class Family:
    """Targets that differ in one setting of their defence.

    Attributes:
        network: name of the undefended network.
        setting: what they differ in, such as `JPEG quality`.
        others: their other settings, where further families of the network differ in these.
        targets: names of the targets by the value of the setting, rising.
    """

    network: str
    setting: str
    others: str
    targets: dict[float, str]

    def title(self, called: Callable[[str], str] = str) -> str:
        """What the network is called, with the other settings where they matter."""
        return f"{called(self.network)} ({self.others})" if self.others else called(self.network)


def families(rows: Sequence[Mapping[str, Any]]) -> list[Family]:
    """All families of two targets or more among those of a run.

    Args:
        rows: those of `targets` in `transfer.json`; what stands under their key `defence` is compared.

    Example:
        >>> def jpeg(quality):
        ...     return {"network": "net", "seed": 0, "parts": [{"class": "JPEG", "quality": quality}]}
        >>> rows = [{"target": f"net_{quality}", "defence": jpeg(quality)} for quality in (95, 30)]
        >>> families([{"target": "net"}, *rows])
        [Family(network='net', setting='JPEG quality', others='', targets={30: 'net_30', 95: 'net_95'})]
    """
    alike: dict[tuple[Any, ...], dict[str, dict[_Key, Any]]] = {}
    for row in rows:
        if not (defence := row.get("defence")):
            continue
        parts = defence["parts"]
        of = defence["network"], defence["seed"], *(part["class"] for part in parts)
        alike.setdefault(of, {})[row["target"]] = {
            (number, part["class"], name): value
            for number, part in enumerate(parts)
            for name, value in part.items()
            if name != "class"
        }
    return [family for of, targets in alike.items() for family in _families(of[0], targets)]


def _families(network: str, targets: Mapping[str, Mapping[_Key, Any]]) -> list[Family]:
    """The families among targets that are one network behind defences of the same classes."""
    keys = dict.fromkeys(key for settings in targets.values() for key in settings)
    differing = [key for key in keys if len({repr(settings.get(key)) for settings in targets.values()}) > 1]
    found = []
    for key in differing:
        lines: dict[str, dict[float, str]] = {}
        for target, settings in targets.items():
            value = settings.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = ", ".join(f"{_text(other)} {settings.get(other)}" for other in differing if other != key)
                # Of targets with equal settings, which are the same network, the first.
                lines.setdefault(others, {}).setdefault(value, target)
        found += [
            Family(network, _text(key), others, dict(sorted(line.items())))
            for others, line in lines.items()
            if len(line) > 1
        ]
    return found


def _text(key: _Key) -> str:
    return f"{key[1]} {key[2]}"

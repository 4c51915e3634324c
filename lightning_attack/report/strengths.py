"""`families`: targets that are one network behind one defence of several strengths, such as JPEG qualities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_Key = tuple[int, str, str]
"""A setting of a defence: which of several it is, its class, and the setting's name."""
_SEED = (-1, "", "seed")
"""That of all parts together; no line goes over it."""


@dataclass(frozen=True)
class Family:
    """Targets that differ in one setting of their defence.

    Attributes:
        network: name of the undefended network.
        setting: what they differ in, such as `JPEG quality`.
        others: what else they are behind, and those of their other settings and seeds in which targets of the network
            differ that are behind the same classes.
        targets: names of the targets by the value of the setting, rising.
    """

    network: str
    setting: str
    others: str
    targets: dict[float, str]

    def title(self, called: Callable[[str], str] = str) -> str:
        """What the network is called, with what else it is behind: no two families of one setting share it."""
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
    alike: dict[tuple[str, tuple[str, ...]], dict[str, dict[_Key, Any]]] = {}
    for row in rows:
        if not (defence := row.get("defence")):
            continue
        parts = defence["parts"]
        of = defence["network"], tuple(part["class"] for part in parts)
        alike.setdefault(of, {})[row["target"]] = {_SEED: defence["seed"]} | {
            (number, part["class"], name): value
            for number, part in enumerate(parts)
            for name, value in part.items()
            if name != "class"
        }
    return [family for (network, classes), targets in alike.items() for family in _families(network, classes, targets)]


def _families(network: str, classes: Sequence[str], targets: Mapping[str, Mapping[_Key, Any]]) -> list[Family]:
    """The families among targets that are one network behind defences of the same classes."""
    keys = dict.fromkeys(key for settings in targets.values() for key in settings)
    differing = [key for key in keys if len({repr(settings.get(key)) for settings in targets.values()}) > 1]
    found = []
    for key in differing:
        lines: dict[str, dict[float, str]] = {}
        for target, settings in targets.items():
            value = settings.get(key)
            if key != _SEED and isinstance(value, int | float) and not isinstance(value, bool):
                others = _others(key, classes, {other: settings.get(other) for other in differing if other != key})
                # Of targets with equal settings, which are the same network, the first.
                lines.setdefault(others, {}).setdefault(value, target)
        found += [
            Family(network, f"{key[1]} {key[2]}", others, dict(sorted(line.items())))
            for others, line in lines.items()
            if len(line) > 1
        ]
    return found


def _others(key: _Key, classes: Sequence[str], others: Mapping[_Key, Any]) -> str:
    """What a defence is beside one of its settings.

    Example:
        >>> others = {_SEED: 1, (0, "JPEG", "subsampling"): 2, (1, "BitDepth", "bits"): 3}
        >>> _others((0, "JPEG", "quality"), ["JPEG", "BitDepth", "MedianFilter"], others)
        'JPEG subsampling 2, then BitDepth bits 3 then MedianFilter, seed 1'
        >>> _others((1, "JPEG", "quality"), ["MedianFilter", "JPEG"], {})
        'after MedianFilter'
    """

    def settings(place: int) -> list[str]:
        return [f"{name} {value}" for (number, _, name), value in others.items() if number == place]

    place = key[0]
    parts = [" ".join([one, *settings(number)]) for number, one in enumerate(classes)]
    words = [parts[place]] if settings(place) else []
    if before := parts[:place]:
        words.append(f"after {' then '.join(before)}")
    if after := parts[place + 1 :]:
        words.append(f"then {' then '.join(after)}")
    return ", ".join([*words, *settings(_SEED[0])])

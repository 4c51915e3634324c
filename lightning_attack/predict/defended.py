"""`defence_facts`: what the defended networks of a run are behind, for its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_attack.models.fingerprint import fingerprint


def defence_facts(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """For each defended network `defence` (its `network` by the name in the run, `seed`, `parts`), as plain values.

    A smoothed one has its `certified_radius` too.

    Args:
        networks: all networks of a run by name.

    Example:
        >>> from lightning_attack.models import JPEG, Defended, as_segmentation_model
        >>> network = as_segmentation_model(nn.Conv2d(3, 2, 1))
        >>> defence_facts({"net": network, "jpeg": Defended(network, [JPEG(50)])})
        {'jpeg': {'defence': {'network': 'net', 'seed': 0, 'parts': [{'class': 'JPEG', 'quality': 50}]}}}
    """
    defended = {name: network for name, network in networks.items() if getattr(network, "defence", None)}
    if not defended:
        return {}
    names = {fingerprint(network): name for name, network in networks.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, network in defended.items():
        inner: Any = network.undefended
        facts: Any = network.defence
        found[name] = {"defence": {"network": names.get(fingerprint(inner), inner.name), **facts}}
        if hasattr(network, "certified_radius"):
            found[name]["certified_radius"] = network.certified_radius
    return found

"""What may stand at a key of a configuration, for messages of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from inspect import isabstract, signature
from types import ModuleType

from lightning_attack import attacks, data, models
from lightning_attack.cli.errors import Part
from lightning_attack.common.configs import CONFIGS, attack_names


def _kinds(module: ModuleType, base: type) -> list[Part]:
    """The concrete classes of a kind that a module offers."""
    found = [part for part in vars(module).values() if isinstance(part, type) and issubclass(part, base)]
    return [part for part in found if not isabstract(part)]


_NETWORKS = _kinds(models, models.SegmentationModel)
_DATASETS = _kinds(data, data.SegmentationDataset)
_OBJECTIVES = _kinds(attacks, attacks.Objective)
_INPUT_TRANSFORMS = _kinds(attacks, attacks.InputTransform)
PARTS: dict[str, Sequence[Part]] = {
    "attack": (*attack_names(), *_kinds(attacks, attacks.Attack)),
    "attacks": (*attack_names(), *_kinds(attacks, attacks.Attack)),
    "source": _NETWORKS,
    "targets": _NETWORKS,
    "members": _NETWORKS,
    "network": _NETWORKS,
    "defences": _kinds(models, models.Defence),
    "dataset": _DATASETS,
    "train": _DATASETS,
    "val": _DATASETS,
    "norm": _kinds(attacks, attacks.Norm),
    "objective": _OBJECTIVES,
    "stages": _OBJECTIVES,
    "switch": (attacks.Switch,),
    "switches": (attacks.Switch,),
    "input_transforms": _INPUT_TRANSFORMS,
    "transform": _INPUT_TRANSFORMS,
    "gradient_transforms": _kinds(attacks, attacks.GradientTransform),
    "source_transforms": _kinds(attacks, attacks.SourceTransform),
}
"""What may stand at a key of a configuration, for error messages; any other class of the right kind may too."""


def inner_options(options: Iterable[str]) -> set[str]:
    """The options of the parts that stand at options, such as `model.attack.eps` at `model.attack`."""
    return {f"{option}.{name}" for option in options for name in _settings(option.rpartition(".")[2])}


def _settings(kind: str) -> set[str]:
    parts = [part for part in PARTS.get(kind, ()) if isinstance(part, type)]
    names = {name for part in parts for name in signature(part).parameters}
    if kind == "attack":  # presets are no classes; their files hold all their settings
        texts = [file.read_text() for file in (CONFIGS / "attacks").glob("*.yaml")]
        names |= {name for text in texts for name in re.findall(r"^  (\w+):", text, re.MULTILINE)}
    return names

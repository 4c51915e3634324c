"""Weights files: read without running pickled code, loaded with errors that name what does not fit, and written."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_attack.common.atomic import atomic_write
from lightning_attack.models.file_kinds import Wanted, foreign_kind
from lightning_attack.models.wrapper import ModelError

EMBEDDED = Path(__file__).parents[1] / "weights"
"""Folder of the weights that come with the package, named `embedded:NAME` in configurations."""

RECIPE, CLASSES = "recipe", "classes"
"""Keys under which a checkpoint, and as JSON a safetensors file's metadata, has a network's arguments and classes."""

_CONTAINERS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Keys under which training programs keep a moving average of the weights, beside the weights themselves."""
_PREFIXES = ("", "module.", "model.", "network.", "net.", "_orig_mod.")


def weights_path(weights: str) -> Path:
    """The file that `weights` names: a path, or `embedded:NAME` for one that comes with the package.

    Raises:
        ModelError: there is no such file.

    Example:
        >>> weights_path("nowhere.pt")
        Traceback (most recent call last):
            ...
        lightning_attack.models.wrapper.ModelError: no file 'nowhere.pt' (weights are a path or 'embedded:NAME')
    """
    if weights.startswith("embedded:"):
        path = EMBEDDED / f"{weights.removeprefix('embedded:')}.safetensors"
        if not path.is_file():
            known = ", ".join(f"embedded:{file.stem}" for file in sorted(EMBEDDED.glob("*.safetensors")))
            raise ModelError(f"no weights '{weights}'; there are {known}")
        return path
    path = Path(weights)
    if not path.is_file():
        raise ModelError(f"no file '{weights}' (weights are a path or 'embedded:NAME'){_folder(weights)}")
    return path


def check_kind(path: str, wanted: Wanted, writer: str) -> None:
    """Raise `ModelError` if there is no such file, or it is none of `writer`; the message says what it is."""
    if not Path(path).is_file():
        raise ModelError(f"no file '{path}'{_folder(path)}")
    if kind := foreign_kind(Path(path), wanted):
        raise ModelError(f"'{path}' is not a file of {writer}: it is {kind}")


def _folder(path: str) -> str:
    return (
        "; it is a folder: name the file in it, or use HuggingFaceModel or SMPHub"
        if path and Path(path).is_dir()
        else ""
    )


def read_weights(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pt`, `.pth` or Lightning `.ckpt` file, by name.

    Files are read with `weights_only=True`: a file that holds anything but tensors and plain containers is refused,
    because unpickling it could run code. Of a file with weights and their moving average (EMA) the weights are read,
    and a warning says so.

    Args:
        path: the file.
        key: the key of the file's dictionary under which the weights are, such as `state_dict_ema`, or several with
            dots between them (`net.state_dict`); or the beginning of the names of one of two networks that stand side
            by side (`teacher`); None: the usual.

    Raises:
        ModelError: the file is not readable, holds pickled objects, no state dict, or none under `key`.
    """
    if kind := foreign_kind(path):
        raise ModelError(f"'{path}' is {kind}")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
            if key is None:
                return content
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = f" ({found})" if (found := unsafe_object(error)) else ""
        raise ModelError(
            f"'{path}' is no weights file, or holds pickled Python objects{unsafe}, which could run code when "
            "they are loaded; it is refused. Save the weights alone: torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # damaged files make torch's readers raise whatever they stumble over
        raise ModelError(f"'{path}' is not a readable weights file ({type(error).__name__}: {error})") from error
    below = _below(content, key) if key is not None else {}
    if below:
        return below
    state = content if key is None else _at_key(path, content, key)
    if key is None and isinstance(content, Mapping):
        inner = [name for name in _CONTAINERS if isinstance(content.get(name), Mapping)]
        average = next((name for name in _AVERAGES if isinstance(content.get(name), Mapping)), None)
        if inner and average:
            warnings.warn(
                f"'{path}' has weights ('{inner[0]}') and their moving average ('{average}'); the weights are taken. "
                f"weights_key={average} takes the average",
                stacklevel=2,
            )
        if inner or average:
            state = content[inner[0] if inner else average]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        inside = _states(content)
        raise ModelError(
            f"'{path}' holds no state dict (a mapping from names to tensors); it holds {_held(content)}"
            + f"\nweights_key takes one of its parts: {', '.join(inside)}" * bool(inside and key is None)
        )
    return dict(state)


def _below(content: Any, key: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a key and a dot, without these; none if the key is one of the file's own."""
    if not isinstance(content, Mapping) or key.partition(".")[0] in content:
        return {}
    inner = next((content[name] for name in _CONTAINERS if isinstance(content.get(name), Mapping)), content)
    found = {name: tensor for name, tensor in inner.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    return strip_prefix(found, f"{key}.")


def _at_key(path: Path, content: Any, key: str) -> Any:
    if isinstance(content, Mapping) and key in content:
        return content[key]
    first, dot, rest = key.partition(".")
    if dot and isinstance(content, Mapping) and first in content:
        return _at_key(path, content[first], rest)
    raise ModelError(f"'{path}' has no weights_key '{key}'; it holds {_held(content)}")


def _states(content: Any, depth: int = 2) -> list[str]:
    """The keys, with dots between them, under which a file has mappings of tensors."""
    found = []
    for name, part in content.items() if isinstance(content, Mapping) and depth else ():
        if isinstance(part, Mapping) and part:
            if all(isinstance(value, Tensor) for value in part.values()):
                found.append(str(name))
            else:
                found += [f"{name}.{inner}" for inner in _states(part, depth - 1)]
    return found


def _held(content: Any, most: int = 8) -> str:
    """What a file holds, in a few words: the keys of a dictionary with the types of their values."""
    if not isinstance(content, Mapping):
        return f"an object of type {type(content).__name__}"
    shown = [f"'{key}' ({type(value).__name__})" for key, value in list(content.items())[:most]]
    return ", ".join(shown) + (f" and {len(content) - most} more keys" if len(content) > most else "") or "nothing"


def unsafe_object(error: pickle.UnpicklingError) -> str:
    """The first object that torch would not unpickle; empty if its message does not name it."""
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    return match[1] if match else ""


def mismatch(missing: Sequence[str], foreign: Sequence[str]) -> str:
    """Which tensors a file lacks and which it has beside a network's, for a message.

    Example:
        >>> mismatch(["head.weight"], ["a", "b", "c", "d"])
        '1 tensors missing (head.weight); 4 foreign tensors (a, b, c, ...)'
    """
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (("tensors missing", missing), ("foreign tensors", foreign))
        if names
    )


def read_recipe(path: Path) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """The arguments that build the network of a `.safetensors` file of `write_weights`, and its class names.

    Raises:
        ModelError: the file does not say how its network is built.
    """
    if kind := foreign_kind(path):
        raise ModelError(f"'{path}' is {kind}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        classes = json.loads(metadata.get(CLASSES, "null"))
        return json.loads(metadata[RECIPE]), None if classes is None else tuple(classes)
    except (SafetensorError, KeyError, ValueError) as error:
        reason = f" ({error})" if isinstance(error, SafetensorError) else ""
        raise ModelError(
            f"'{path}' does not say which network it belongs to{reason}; use SMPModel with arch, encoder_name and "
            "weights"
        ) from error


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    recipe: Mapping[str, Any] | None,
    classes: Sequence[str] | None = None,
) -> None:
    """Write a `.safetensors` file, with the arguments that build its network and the class names in its metadata."""
    known = {RECIPE: recipe, CLASSES: None if classes is None else list(classes)}
    metadata = {key: json.dumps(value) for key, value in known.items() if value is not None}
    with atomic_write(path) as unfinished:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, unfinished, metadata)
        unfinished.chmod(0o644)  # safetensors writes files that only their owner can read


def load_weights(
    network: nn.Module,
    path: Path,
    allow: tuple[str, ...] = (),
    key: str | None = None,
    aux: str | None = None,
    other_names: Mapping[str, str] | None = None,
) -> None:
    """Load a weights file into `network`, whichever usual prefix its names carry; every tensor must find its place.

    Half precision files are converted to the network's type. An auxiliary head that the file has beside the whole
    network is left out with a warning, since predictions do not use it.

    Args:
        network: the network.
        path: the file.
        allow: beginnings of names that the file may have beside the network's, such as `classifier.`.
        key: as in `read_weights`.
        aux: the setting, such as `aux_loss`, that gives the network an auxiliary head; None: it can have none.
        other_names: names that tensors of the network may have in the file, with those that they have in it.

    Raises:
        ModelError: names are missing or foreign, or shapes differ (often: another number of classes).
    """
    found, wanted = read_weights(path, key), network.state_dict()
    # "num_batches_tracked" counts training steps; older files and safetensors exports leave it out.
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    known = other_names or {}

    def below(prefix: str) -> dict[str, Tensor]:
        return {known.get(name, name): tensor for name, tensor in strip_prefix(found, prefix).items()}

    def fitting(prefix: str) -> tuple[int, int]:
        names = below(prefix).keys()
        return len(needed & names), sum(name.startswith(allow) for name in names)

    prefix = max(_prefixes(), key=fitting)
    state = below(prefix)
    if prefix and (others := _others(found, prefix, needed)):
        warnings.warn(
            f"'{path}' has several networks of this form, and the one under '{prefix[:-1]}' is taken; "
            f"{len(found) - len(state)} tensors of the file are left. weights_key={' or '.join(others)} takes another",
            stacklevel=2,
        )
    state = {name: tensor for name, tensor in state.items() if name in wanted or not name.startswith(allow)}
    missing, foreign = sorted(needed - state.keys()), sorted(state.keys() - wanted.keys())
    heads = _heads(foreign)
    if heads and not missing and sum(heads.values()) == len(foreign):
        warnings.warn(
            f"'{path}' has an auxiliary head beside the network ({_counted(heads)}); it is left out, predictions do "
            f"not use it{f'. {aux}=true keeps it' if aux else ''}",
            stacklevel=2,
        )
        state = {name: tensor for name, tensor in state.items() if name in wanted}
        foreign = []
    if missing or foreign:
        raise ModelError(
            f"'{path}' is a checkpoint of another network: {mismatch(missing, foreign)}{_hint(missing, foreign, aux)}"
        )
    differing = [name for name in state if state[name].shape != wanted[name].shape]
    if differing:
        name = differing[0]
        raise ModelError(
            f"'{path}' does not fit: {len(differing)} tensors have another shape, the first is {name} with "
            f"{tuple(state[name].shape)} in the file and {tuple(wanted[name].shape)} in the network "
            "(another number of classes or another encoder?)"
        )
    network.load_state_dict(state, strict=False)


_HEAD = re.compile(r"aux|dsn|classification_head")
"""In the names of heads that help training, of torchvision, mmsegmentation, semseg and smp among others."""


def _groups(names: Sequence[str]) -> dict[str, int]:
    """How many names there are under each first component."""
    return dict(Counter(name.partition(".")[0] for name in names))


def _heads(names: Sequence[str]) -> dict[str, int]:
    return {group: count for group, count in _groups(names).items() if _HEAD.match(group)}


def _counted(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{count} tensors under {group}." for group, count in groups.items())


def _hint(missing: Sequence[str], foreign: Sequence[str], aux: str | None) -> str:
    """What the parts of a network tell that the names alone do not."""
    if aux and missing and not foreign and _heads(missing) == _groups(missing):
        return f"; the file has no auxiliary head: {aux}=false"
    if heads := _heads(foreign):
        return f"; the file has an auxiliary head ({_counted(heads)}){f': {aux}=true' if aux else ''}"
    groups = _groups(foreign)
    hint = f"; the file has {_counted(groups)}" if len(foreign) > 3 and len(groups) < 5 else ""
    if foreign and not missing and len(groups) <= 2:
        without = " and ".join(f"not name.startswith('{group}.')" for group in groups)
        hint += f"; the network is complete without them: save {{name: w for name, w in state.items() if {without}}}"
    return hint


def _others(found: Mapping[str, Tensor], prefix: str, needed: set[str]) -> list[str]:
    """Under what else than a prefix a file has all the tensors that a network needs."""
    if not needed:
        return []
    name = min(needed)
    ends = {one.removesuffix(name) for one in found if one.endswith(f".{name}")} - {prefix}
    return sorted(end[:-1] for end in ends if needed <= strip_prefix(found, end).keys())


def _prefixes() -> list[str]:
    """Single prefixes and pairs of them, such as `model.network.`; the bare names first."""
    return list(_PREFIXES) + [first + second for first in _PREFIXES[1:] for second in _PREFIXES[1:]]


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix` without it. Others (a loss, an EMA copy beside the network) are left out."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

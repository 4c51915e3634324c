"""Check a Lightning checkpoint before anything is built on it: is it one, and does it belong to this module?"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_attack.models.file_kinds import foreign_kind
from lightning_attack.models.weights import mismatch, unsafe_object
from lightning_attack.models.wrapper import ModelError

_VERSION = "pytorch-lightning_version"


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The content of a Lightning checkpoint, read without running pickled code.

    Raises:
        ModelError: there is no such file, or it is something else; the message says what, and what to do with it.

    Example:
        >>> read_checkpoint(Path("nowhere.ckpt"))
        Traceback (most recent call last):
            ...
        lightning_attack.models.wrapper.ModelError: ckpt_path: there is no file 'nowhere.ckpt'
    """
    if not path.is_file():
        what = "is a folder; give the .ckpt file in it" if path.is_dir() else ""
        raise ModelError(f"ckpt_path: '{path}' {what}" if what else f"ckpt_path: there is no file '{path}'")
    if path.suffix == ".safetensors":
        raise _plain(path, "holds weights alone", "TrainedModel --model.network.file")
    if kind := foreign_kind(path):
        raise ModelError(f"ckpt_path: '{path}' is {kind}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        unsafe = unsafe_object(error)
        raise ModelError(
            f"ckpt_path: '{path}' "
            + (f"holds a pickled object ({unsafe}), which could run code when it is loaded" if unsafe else _NONE)
            + "\ngive a .ckpt file that `fit` of this program wrote"
        ) from error
    except Exception as error:  # damaged files make torch's readers raise whatever they stumble over
        raise ModelError(f"ckpt_path: '{path}' {_NONE}, or it is damaged ({type(error).__name__})") from error
    if not isinstance(content, Mapping) or "state_dict" not in content or _VERSION not in content:
        raise _plain(path, "is no Lightning checkpoint: it has no trainer's state", "SMPModel --model.network.weights")
    return content


_NONE = "is no Lightning checkpoint"


def check_checkpoint(path: Path, module: nn.Module, learns: bool) -> None:
    """Raise `ModelError` if a checkpoint is none of this module's.

    Args:
        path: the file.
        module: the LightningModule that shall go on from it, or be scored with its weights.
        learns: whether training goes on, which takes the state of the optimizer too.
    """
    content = read_checkpoint(path)
    found, wanted = content["state_dict"], module.state_dict()
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or foreign:
        raise ModelError(
            f"ckpt_path: '{path}' is a checkpoint of another network: {mismatch(missing, foreign)}\n"
            "give model.network the settings that it was trained with; they stand in the config.yaml of its run"
        )
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            raise ModelError(
                f"ckpt_path: '{path}' does not fit: {name} is {tuple(found[name].shape)} in it and "
                f"{tuple(tensor.shape)} in model.network\nanother number of classes, or another encoder?"
            )
    if learns and not content.get("optimizer_states"):
        raise ModelError(
            f"ckpt_path: '{path}' has no state of an optimizer, so training cannot go on from it\n"
            "a ModelCheckpoint with save_weights_only: false keeps it"
        )


def _plain(path: Path, what: str, option: str) -> ModelError:
    return ModelError(f"ckpt_path: '{path}' {what}\nweights go to the network itself: --model.network={option}={path}")

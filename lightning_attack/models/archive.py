"""Check a `.pt2` file before it is loaded: `torch.export.load` would run pickled and native code in it."""

from __future__ import annotations

import io
import json
import pickle
import re
from pathlib import Path

import torch

from lightning_attack.models.weights import check_kind
from lightning_attack.models.wrapper import ModelError

_NAMES = re.compile(
    r"models/model\.json|data/(weights/weight|constants/tensor)_\d+|data/(weights|constants)/model_\w+_config\.json"
    r"|data/sample_inputs/model\.pt|extra/.+|archive_(format|version)|\.data/\w+|byteorder|version"
)
"""Entries of an archive that holds a graph and tensors: no compiled code, and no objects of other classes."""

_INPUTS = "data/sample_inputs/model.pt"


def read_program(path: str) -> io.BytesIO:
    """The content of a file of `torch.export.save` that can be loaded without running what is in it.

    A `.pt2` file is a zip archive of a graph (JSON), tensors (bytes) and example inputs (a pickle). It may also hold
    compiled libraries and further pickles, and `torch.export.load` runs all of these; such a file is refused.

    Raises:
        ModelError: there is no such file, it is no such archive, or it holds more than a graph and plain tensors.

    Example:
        >>> read_program("nowhere.pt2")
        Traceback (most recent call last):
            ...
        lightning_attack.models.wrapper.ModelError: no file 'nowhere.pt2'
    """
    check_kind(path, "program", "torch.export.save")
    content = io.BytesIO(Path(path).read_bytes())  # load exactly the bytes that were checked
    try:
        # The reader of torch.export.load, so that both see the same entries.
        archive = torch._C.PyTorchFileReader(content)
        names = archive.get_all_records()
        if not {"models/model.json", "serialized_exported_program.json"} & {*names}:
            raise ValueError("no exported program in it")
        foreign = [name for name in names if not _NAMES.fullmatch(name)]
        foreign += [name for name in names if name.endswith("_config.json") and _pickles(archive.get_record(name))]
        if _INPUTS in names:
            torch.load(io.BytesIO(archive.get_record(_INPUTS)), weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, "example inputs that are no tensors") from error
    except Exception as error:  # damaged files make torch's readers raise whatever they stumble over
        raise ModelError(f"'{path}' is not a file of torch.export.save ({type(error).__name__}: {error})") from error
    if foreign:
        raise _refusal(path, f"'{foreign[0]}'")
    content.seek(0)
    return content


def _pickles(config: bytes) -> bool:
    """Whether a table of tensors names some that are pickled."""
    return any(entry.get("use_pickle") for entry in json.loads(config)["config"].values())


def _refusal(path: str, what: str) -> ModelError:
    return ModelError(
        f"'{path}' holds {what}: more than a graph and plain tensors, which could run code when it is loaded; it is "
        "refused. Export the network again with this torch (torch.export.save), on plain tensors"
    )

"""`ArrayFile`: arrays in .npy, .npz and .pt files from anywhere, inspected before they are read."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_attack.data.base import DataError

ARRAY_SUFFIXES = (".npy", ".npz", ".pt")
_SINGLE = "the array"


class Form(NamedTuple):
    """What an array is, before it is read."""

    shape: tuple[int, ...]
    dtype: str


class ArrayFile:
    """The arrays of one file by name; what is not asked for is not read.

    Nothing in a file is run: NumPy files load without pickles, PyTorch's with `weights_only`. A .pt file whose content
    is compressed is refused, and an array of an .npz file is unpacked only when somebody asks for it, who has seen its
    shape.

    Args:
        path: an .npy, .npz or .pt file.

    Raises:
        DataError: it cannot be read, or holds more than arrays and plain values.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.npz"
        ...     np.savez_compressed(path, adv=np.ones((2, 3, 4, 4), np.uint8), labels=np.zeros(2))
        ...     arrays = ArrayFile(path)
        ...     arrays.forms["adv"], arrays.read("adv").sum().item()
        (Form(shape=(2, 3, 4, 4), dtype='uint8'), 96)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: tuple[str, Tensor] | None = None
        kind = path.suffix.lower()
        try:
            if kind == ".npz":
                self.forms = _headers(path)
                return
            self._values = {_SINGLE: _open_npy(path)} if kind == ".npy" else _open_pt(path)
        except DataError:
            raise
        except pickle.UnpicklingError as error:
            raise DataError(f"'{path}' is damaged, or holds more than tensors and plain values: not loaded") from error
        except Exception as error:  # damaged files make the readers raise whatever they stumble over
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"'{path}' cannot be read ({said})") from error
        self.forms = {name: Form(tuple(value.shape), str(value.dtype).removeprefix("torch."))
                      for name, value in self._values.items()}  # fmt: skip

    def read(self, name: str) -> Tensor:
        """One of the arrays. Of several in an .npz file the last one stays in memory, for its images come one by one.

        Raises:
            DataError: it is damaged.
        """
        if self.path.suffix.lower() != ".npz":
            value = self._values[name]
            return value if isinstance(value, Tensor) else _tensor(value)
        if self._kept is None or self._kept[0] != name:
            try:
                # Opened anew: processes that were forked would share the place in an open file.
                with np.load(self.path, allow_pickle=False) as arrays:
                    self._kept = name, _tensor(arrays[name])
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise DataError(f"'{name}' in '{self.path}' cannot be read ({error})") from error
        return self._kept[1]


def _headers(path: Path) -> dict[str, Form]:
    """Shapes and types of the arrays of an .npz file, without unpacking them."""
    forms = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in readers:
                    raise ValueError(f"'{entry}' has the NumPy format {version}")
                shape, _, dtype = readers[version](file)
            forms[entry.removesuffix(".npy")] = Form(shape, str(dtype))
    return forms


def _open_npy(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="c", allow_pickle=False)


def _open_pt(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch.save: a tensor, or those in a list or in a dictionary."""
    zipped = zipfile.is_zipfile(path)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise DataError(f"'{path}' is compressed, which torch.save does not do; it is not loaded")
    content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    if isinstance(content, Tensor):
        content = {_SINGLE: content}
    elif isinstance(content, list | tuple):
        content = {str(number): value for number, value in enumerate(content)}
    if not isinstance(content, Mapping):
        raise DataError(
            f"'{path}' holds an object of type {type(content).__name__}; expected a tensor, or a dictionary of them"
        )
    # Others than plain ones on the CPU may have any shape without having its values.
    return {str(name): value.detach() for name, value in content.items()
            if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
            and not value.is_quantized}  # fmt: skip


def _tensor(array: np.ndarray) -> Tensor:
    """A NumPy array as a tensor; of one that lies on disk only what is looked at is read."""
    return torch.from_numpy(np.asarray(array))

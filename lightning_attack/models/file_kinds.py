"""What a file is by its first bytes, for files that should hold a network and hold something else."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Literal

from lightning_attack.common.file_starts import kind_of_start

Wanted = Literal["weights", "program", "script"]
_OURS: dict[Wanted, str] = {
    "weights": "a file of torch.save, as SMPModel, TorchVisionModel and SemSegModel take it for their weights",
    "program": "a program of torch.export, which ExportedModel takes",
    "script": "a TorchScript file, which TorchScriptModel takes",
}


def foreign_kind(path: Path, wanted: Wanted = "weights") -> str | None:
    r"""What the file is if it cannot be what is wanted, and what to do about it; None if it may be.

    Args:
        path: the file.
        wanted: `weights`, `program` (of `torch.export.save`) or `script` (of `torch.jit.save`).

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     page = Path(folder) / "weights.pth"
        ...     _ = page.write_bytes(b"\n<!DOCTYPE html><title>Quota exceeded</title>")
        ...     foreign_kind(page)[:27]
        'an HTML page, not the file:'
    """
    with path.open("rb") as file:
        start = file.read(512)
    if kind := kind_of_start(start):
        return kind
    if start.startswith(b"PK"):
        return _kind_of_zip(path, wanted)
    if path.suffix == ".onnx" or (start.startswith(b"\x08") and (b"pytorch" in start or b"onnx" in start)):
        return "an ONNX model, which is not read here; export the network with torch.export instead (.pt2)"
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            if "pickle" not in archive.getnames():  # in those of torch before 1.6 it is
                return "a tar archive; unpack it first"
    if wanted == "weights":
        return None
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "a safetensors file, which TrainedModel or SMPModel take"
    return _OURS["weights"] if start.startswith(b"\x80") else "no zip archive"


def _kind_of_zip(path: Path, wanted: Wanted) -> str | None:
    """The files of torch are zip archives, told apart by what is in them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a zip archive whose end is missing or damaged; download it again"
    found: Wanted | None = None
    if any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in names):
        found = "program"
    elif any(name.endswith("data.pkl") for name in names):
        found = "script" if any(name.endswith("constants.pkl") for name in names) else "weights"
    if found is None:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return f"a zip archive of other files ({shown}); unpack it first"
    return None if found == wanted else _OURS[found]

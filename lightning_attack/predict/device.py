"""The device of a run: its name, and why an NVIDIA GPU is not used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/nvidiactl")
"""Files that the NVIDIA driver makes."""


def device_name(device: torch.device, count: int = 1) -> str:
    """A device as it is called in logs; of a GPU with its model.

    Args:
        device: the device.
        count: how many of its kind are used, one by each process.

    Example:
        >>> device_name(torch.device("cpu")), device_name(torch.device("cpu"), 4)
        ('cpu', '4 x cpu')
    """
    model = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{count} x {device.type}{model}" if count > 1 else f"{device}{model}"


def why_no_gpu(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why torch cannot use the NVIDIA GPU of this machine; None if it can, or if there is no sign of one."""
    if not (any(Path(sign).exists() for sign in _SIGNS) or shutil.which("nvidia-smi")):
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        hidden = environment.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and not hidden.strip().startswith(tuple("0123456789GM")):
            return f"CUDA_VISIBLE_DEVICES='{hidden}' hides it"
        if torch.version.cuda is None:
            return f"this torch ({torch.__version__}) is built without CUDA"
        return f"{' '.join(str(error).split())} (this torch is built for CUDA {torch.version.cuda})"
    return None

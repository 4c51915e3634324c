"""What an attack costs: time, memory, and passes of the source."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attack.engine import float32_precision, full_float32


def clock(images: Tensor) -> float:
    """Seconds of a steady clock, read when the device of `images` has finished all work that it was given."""
    if images.device.type != "cpu":
        torch.accelerator.synchronize(images.device)
    return time.perf_counter()


def device_facts(device: torch.device, exact: bool = False) -> dict[str, Any]:
    """What a run was computed on: `type`, `name`, and on CUDA what `float32` was: `ieee` or `tf32`.

    With `exact` that is `ieee` whatever torch is told, see `exact_on`.

    Example:
        >>> device_facts(torch.device("cpu"))["type"]
        'cpu'
    """
    if device.type != "cuda":
        return {"type": device.type, "name": platform.processor() or platform.machine()}
    with full_float32() if exact else nullcontext():
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "float32": float32_precision()}


class PeakMemory:
    """Measures the most memory that an attack needs, beyond what was in use before the first attack.

    On accelerators it is what torch has allocated, on the CPU the size of the process, which Linux reports. Memory that
    the process keeps from one batch for the next counts for both.
    """

    def __init__(self) -> None:
        self._before: int | None = None

    def begin(self, device: torch.device) -> None:
        """Forget earlier peaks."""
        if device.type != "cpu":
            torch.accelerator.reset_peak_memory_stats(device)
            self._before = torch.accelerator.memory_allocated(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # another system, or a container that forbids it
            return
        if self._before is None:
            self._before = _of_process("VmRSS")

    def end(self, device: torch.device) -> int | None:
        """Bytes at the peak since `begin`; None where the system does not tell."""
        if self._before is None:
            return None
        peak = torch.accelerator.max_memory_allocated(device) if device.type != "cpu" else _of_process("VmHWM")
        return max(peak - self._before, 0)


def _of_process(key: str) -> int:
    """A size of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


@contextmanager
def count_passes(source: nn.Module) -> Iterator[dict[str, int]]:
    """Count forward and backward passes, image by image; of an ensemble those of its members.

    A gradient that starts at the logits or ends at the images is a backward pass, also if it does not do both: that of
    a loss of features, or that of the logits w.r.t. features.
    """
    passes = {"forward": 0, "backward": 0}
    begun: dict[nn.Module, list[int]] = {}

    def forward(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        passes["forward"] += len(inputs[0])
        if not inputs[0].requires_grad:
            return None
        counted = begun[network] = [0]

        def at_images(gradient: Tensor) -> None:
            # One that started at the logits is counted already.
            passes["backward"] += len(gradient) - counted[0]
            counted[0] = 0

        # A view of its own for each pass, because several networks may be shown the same tensor.
        images = inputs[0].view_as(inputs[0])
        images.register_hook(at_images)
        return (images, *inputs[1:])

    def after(network: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad or network not in begun:
            return
        counted = begun.pop(network)

        def at_logits(gradient: Tensor) -> None:
            passes["backward"] += len(gradient)
            counted[0] = len(gradient)

        output.register_hook(at_logits)

    networks = getattr(source, "members", [source])
    hooks = [network.register_forward_pre_hook(forward) for network in networks]
    hooks += [network.register_forward_hook(after) for network in networks]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()

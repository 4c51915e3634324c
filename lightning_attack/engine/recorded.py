"""`RecordedProgram`: a network's graphs on CUDA, whose passes are recorded once and then started as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, fx, nn

from lightning_attack.engine.graphs import BUILDING, UnsupportedError, arguments, calls, cleaned, constant
from lightning_attack.engine.program import Halves, OnePass, Program, channels_last

aten = torch.ops.aten

WARM_UP = 3
"""Runs before a recording, in which libraries choose their algorithms and allocate what they need."""

SAME = 1e-2
"""Largest difference between a recorded pass and the same graph run step by step, relative to its norm: operators that
add in no fixed order differ a little."""

Work = Callable[[], list[Tensor]]


class Recorder(Protocol):
    """Records what a function starts on the device."""

    def __call__(self, work: Work) -> tuple[list[Tensor], Callable[[], None]]:
        """The function's results, and what computes them again, in the same place, from what is now in its inputs."""

    def stream(self) -> object:
        """What the caller's work is ordered by."""


class CudaRecorder:
    """Records CUDA graphs, all of them in the same memory: at most one pass of them may be pending (`OnePass`).

    They share memory for what a pass needs only while it runs; what is kept for the backward pass, and results, have
    places of their own.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> tuple[list[Tensor], Callable[[], None]]:
        with torch.cuda.device(self._device):
            stream, caller = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    work()
            caller.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads (the loader's, that of files) may go on meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                results = work()
            graph.replay()  # nothing was computed while it was recorded
        return results, graph.replay

    def stream(self) -> object:
        return torch.cuda.current_stream(self._device)


def recorder(device: torch.device) -> Recorder:
    """Records passes on a device."""
    return CudaRecorder(device)


class Recording:
    """The two passes of a network, recorded: `halves` are used as those of a `Program`, but for one pass at a time.

    Results are copied out of the recording's memory; what is kept for the backward pass stays there until the next
    forward pass overwrites it.

    Args:
        halves: the passes as graphs.
        images: an example.
        recorder: records them.
    """

    def __init__(self, halves: Halves, images: Tensor, recorder: Recorder) -> None:
        self.stream = recorder.stream()
        self._images = images.detach().clone(memory_format=torch.channels_last)
        (self._logits, *self._kept), self._forward = recorder(lambda: list(halves.forward(self._images)))
        self._small = channels_last(torch.zeros(halves.small, dtype=halves.dtype, device=images.device))
        (self._gradient,), self._back = recorder(lambda: [halves.back([*self._kept, self._small])])
        self.halves = Halves(self._run_forward, self._run_back, halves.resized, halves.small, halves.dtype)

    def _run_forward(self, images: Tensor) -> tuple[Tensor, ...]:
        self._images.copy_(images)
        self._forward()
        return self._logits.clone(), *self._kept

    def _run_back(self, given: list[Tensor]) -> Tensor:
        self._small.copy_(given[-1])
        given.clear()
        self._back()
        return self._gradient.clone(memory_format=torch.contiguous_format)


class Recordings:
    """What the recordings of a network share.

    Args:
        recorder: records passes.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.passes = recorder, OnePass()


class RecordedProgram(Program):
    """As `Program`, on CUDA: graphs of the library's operators, of which a pass with a gradient can be recorded.

    While the backward pass of a recorded pass may still come, other passes run the graphs step by step, as those do
    which are called on another stream. So the callers may call forward as often as they like before a backward pass.

    Args:
        network: the network, frozen, in eval mode.
        images: the shape.
        bfloat16: whether to compute in bfloat16.
        constants: the weights in the layout they are needed in, shared with the programs for other shapes.
        recordings: shared as well.
        device: where the network is.
    """

    def __init__(
        self,
        network: nn.Module,
        images: tuple[int, ...],
        bfloat16: bool,
        constants: Constants,
        recordings: Recordings,
        device: torch.device,
    ) -> None:
        super().__init__(network, images, bfloat16, constants, device)
        self._shared = recordings
        self.recording: Recording | None = None

    def __call__(self, images: Tensor) -> Tensor:
        recording = self.recording
        if recording is not None and images.requires_grad and torch.is_grad_enabled():
            on_time = self._shared.recorder.stream() == recording.stream
            if on_time and (slot := self._shared.passes.begin()) is not None:
                logits: Tensor = recording.halves(images, slot)
                return logits
        return super().__call__(images)

    def record(self, images: Tensor) -> None:
        """Record the passes, and compare a recorded pass with one that runs step by step.

        Raises:
            UnsupportedError: they differ.
            Exception: whatever CUDA raises where something cannot be recorded, or memory runs out.
        """
        with BUILDING, torch.inference_mode(False):
            halves = self.halves()
            with torch.no_grad():
                recording = Recording(halves, images, self._shared.recorder)
            for example in (images.detach(), images.detach().flip(-1)):
                for found, expected in zip(_both(recording.halves, example), _both(halves, example), strict=True):
                    if not (found - expected).norm() <= SAME * expected.norm():
                        raise UnsupportedError("a recorded pass gives something else")
            self.recording = recording


def _both(halves: Halves, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and a gradient of the images."""
    with torch.enable_grad():
        images = images.clone().requires_grad_()
        logits = halves(images)
        return logits.detach(), torch.autograd.grad(logits.square().mean(), images)[0]


class Constants:
    """For CUDA: the library's operators as they are, with the weights of convolutions in channels_last.

    The constants of graphs are tensors of their own: a parameter may be moved to another device after a run, but a
    recording goes on reading the same memory. Equal ones are kept once, whatever the shape of the images.
    """

    masks = False

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], list[Tensor]] = {}

    def adopt(self, module: fx.GraphModule) -> fx.GraphModule:
        weights = {arguments(node)[1] for node in calls(module.graph, aten.convolution.default)}
        for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
            value, name = constant(module, node), str(node.target)
            if value is not None:
                if node in weights and value.ndim == 4:
                    value = value.contiguous(memory_format=torch.channels_last)
                delattr(module, name)
                module.register_buffer(name, self._once(value))
        return cleaned(module)

    def lower(self, module: fx.GraphModule) -> fx.GraphModule:
        return module

    def finish(self, module: fx.GraphModule) -> fx.GraphModule:
        return module

    def _once(self, value: Tensor) -> Tensor:
        known = self._known.setdefault((value.shape, value.stride(), value.dtype), [])
        for other in known:
            if other.data_ptr() == value.data_ptr() or torch.equal(other, value):
                return other
        known.append(value)
        return value

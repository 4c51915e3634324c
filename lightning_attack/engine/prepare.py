"""`prepare`: run a frozen network faster, for its logits and for the gradient of its images."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_attack.engine.graphs import BUILDING, UnsupportedError
from lightning_attack.engine.memory import out_of_memory

if TYPE_CHECKING:
    from lightning_attack.engine.convolution import Packed

log = logging.getLogger(__name__)

Kind = Literal["eager", "fused", "compiled"]
Precision = Literal["float32", "bf16"]
AnyProgram = Callable[[Tensor], Tensor]
"""`Program` or `CompiledProgram`: images of one shape to logits."""
StatusCallback = Callable[[str], None]
"""Called with a line for the user when a network is rewritten or compiled, and when that is done."""


def ignore_status(status: str) -> None:
    """Status callback that ignores all messages."""


SHAPES = 16
"""Number of image shapes whose programs are kept; the least recently used one is dropped first."""

TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bf16": 0.2}
"""Largest difference between the first logits of each shape and those of the network itself, relative to their norm."""


def prepare(
    network: nn.Module,
    example: Tensor | None = None,
    *,
    kind: Kind = "fused",
    precision: Precision = "float32",
    on_status: StatusCallback = ignore_status,
) -> PreparedNetwork:
    """Wrap a frozen network so that it gives the same logits, and the same gradients of images, in less time.

    It is called as the network is. The first call with a shape of images, and the first with images that require a
    gradient, take some seconds longer, in which the network is rewritten for it.

    Args:
        network: takes images (B, 3, H, W), returns logits (B, C, H', W'). Nothing of it is changed.
        example: images for whose shape the network is rewritten at once, with and without a gradient.
        kind: `eager` runs the network as it is, to the last bit. `fused` runs graphs made from it, whose convolutions
            are fused with what surrounds them; `compiled` leaves that to torch.compile, which needs a C++ compiler and
            takes a minute for each shape of images.
        precision: what convolutions and matrix products compute in: float32, or bfloat16 (`bf16`), which `eager` does
            not offer. Images, logits and gradients are float32 with both.
        on_status: called when the network is being rewritten or compiled, and with the time that took.

    Raises:
        ValueError: there is no such kind or precision, or eager is to run in bfloat16.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU()).requires_grad_(False).eval()
        >>> network[0].weight.data = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]]).view(2, 3, 1, 1)
        >>> fast, images = prepare(network), torch.ones(1, 3, 1, 1, requires_grad=True)
        >>> fast(images).flatten().tolist()                 # 1 + 2 + 3, max(0, -1)
        [6.0, 0.0]
        >>> torch.autograd.grad(fast(images).sum(), images)[0].flatten().tolist()
        [1.0, 2.0, 3.0]
    """
    fast = PreparedNetwork(network, kind, precision, on_status)
    if example is not None:
        with torch.no_grad():
            fast(example)
        with torch.enable_grad():
            images = example.detach().requires_grad_()
            torch.autograd.grad(fast(images).sum(), images)
    return fast


class PreparedNetwork(nn.Module):
    """See `prepare`.

    Where graphs cannot be used the network itself is run, and each reason is logged once: images other than float32 on
    the CPU (with `compiled` also on CUDA), training mode, weights that require a gradient, autocast, networks that
    cannot be written as a graph or whose graph gives other logits, and builds of torch that lack a part the engine
    needs. The network itself is also run, without a warning, while any of its modules has more or fewer hooks than at
    first, so that these hooks are called. If its weights change, it is rewritten.

    A second derivative is refused; in one process, several threads may call it.

    Attributes:
        network: the network.
        on_status: see `prepare`.
    """

    def __init__(
        self, network: nn.Module, kind: Kind, precision: Precision, on_status: StatusCallback = ignore_status
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind) or precision not in get_args(Precision):
            raise ValueError(
                f"kind={kind!r}, precision={precision!r}: must be one of {', '.join(get_args(Kind))}, and of "
                f"{', '.join(get_args(Precision))}"
            )
        if kind == "eager" and precision != "float32":
            raise ValueError("kind='eager' runs the network as it is; precision='bf16' needs another kind")
        self.network, self.kind, self.precision = network, kind, precision
        self.training = network.training
        self._programs: OrderedDict[Hashable, AnyProgram | None] = OrderedDict()
        self._packed: Packed | None = None
        self._reported: set[str] = set()
        self.on_status = on_status
        self._ready: set[Hashable] = set()
        self._weights, self._hooks = _weights(network), _hooks(network)

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights can be neither copied nor pickled; a copy makes graphs of its own.
        return {**vars(self), "_programs": OrderedDict(), "_packed": None, "_ready": set()}

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        if self.kind == "eager" or _hooks(self.network) != self._hooks:
            return self._network_itself(images)
        work = tuple(images.shape), images.requires_grad and torch.is_grad_enabled()
        if work in self._ready:
            return self._run(images)
        what = f"'{_name(self.network)}' for {images.shape[-2]} x {images.shape[-1]} pixels"
        self.on_status(f"{'compiling' if self.kind == 'compiled' else 'rewriting'} {what}")
        begin = time.perf_counter()
        logits = self._run(images)
        self.on_status(f"{what}: ready after {time.perf_counter() - begin:.0f} s")
        self._ready.add(work)
        return logits

    def _run(self, images: Tensor) -> Tensor:
        program = self._program(images)
        if program is not None:
            try:
                return program(images)
            except Exception as error:
                self._give_up(images, error)
        return self._network_itself(images)

    def _network_itself(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"'{_name(self.network)}' returned {type(logits).__name__}; expected logits (B, C, H, W). Wrap it in "
                "lightning_attack.models.SegmentationModel, which takes them from dictionaries and tuples"
            )
        return logits

    def _program(self, images: Tensor) -> AnyProgram | None:
        reason = self._outside(images)
        if reason:
            self._report(reason)
            return None
        shape = tuple(images.shape)
        with BUILDING:
            weights = _weights(self.network)
            if weights != self._weights:
                self._weights, self._packed = weights, None
                self._programs.clear()
                self._ready.clear()
            if shape not in self._programs:
                try:
                    with torch.inference_mode(False):
                        self._programs[shape] = self._checked(self._build(shape, images.device), images)
                except Exception as error:
                    self._give_up(images, error)
                while len(self._programs) > SHAPES:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(shape)
            return self._programs[shape]

    def _build(self, shape: tuple[int, ...], device: torch.device) -> AnyProgram:
        # Imported late: these modules need parts of torch that it may lack, see `missing`.
        from lightning_attack.engine.compiled import CompiledProgram
        from lightning_attack.engine.convolution import Packed
        from lightning_attack.engine.program import Program

        bfloat16 = self.precision == "bf16"
        if self.kind == "compiled":
            return CompiledProgram(self.network, shape, bfloat16, device)
        self._packed = self._packed or Packed()
        return Program(self.network, shape, bfloat16, self._packed)

    def _checked(self, program: AnyProgram, images: Tensor) -> AnyProgram:
        """The program, if it gives the same logits as the network; that of a network with random numbers may not."""
        with torch.no_grad():
            expected, found = self.network(images), program(images)
        finite = expected.isfinite()
        if not torch.equal(found.isfinite(), finite):
            # The library's ReLU after a convolution makes 0 of NaN: a broken network would look sound.
            raise UnsupportedError("its logits would be finite elsewhere than those of the network")
        error, norm = (found - expected).norm(), expected.norm()  # the norm of a dead network's is 0
        if finite.all() and not error <= TOLERANCE[self.precision] * norm:
            raise UnsupportedError(f"its logits would differ by {float(error / norm):.1g} of their norm")
        return program

    def _outside(self, images: Tensor) -> str:
        """Why no graph can be used for these images, or for the network in its present state; empty if one can."""
        if missing():
            return missing()
        if images.dtype != torch.float32:
            return f"images are {images.dtype}, not float32"
        device = images.device.type
        if device not in (("cpu", "cuda") if self.kind == "compiled" else ("cpu",)):
            return f"images are on {device}, which this engine does not know"
        if device == "cpu" and not torch.backends.mkldnn.is_available():
            return "this build of torch has no oneDNN"
        if torch.is_autocast_enabled(device):
            return "autocast is on"
        if any(module.training for module in self.network.modules()):
            return "the network is in training mode"
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in self.network.parameters()):
            return "weights require a gradient"
        return ""

    def _give_up(self, images: Tensor, error: Exception) -> None:
        """Run the network itself from now on; but raise where memory is short, since the network itself needs more."""
        if out_of_memory(error):
            raise error
        self._programs[tuple(images.shape)] = None
        first = str(error).strip().partition("\n")[0]
        self._report(first if isinstance(error, UnsupportedError) else f"{type(error).__name__}: {first}")

    def _report(self, reason: str) -> None:
        if reason not in self._reported:
            self._reported.add(reason)
            log.warning("'%s' runs without the %s engine: %s", _name(self.network), self.kind, reason)


@cache
def missing() -> str:
    """What this build of torch lacks that graphs are made of, as a reason to do without them; empty if it has all."""
    try:
        import_module("lightning_attack.engine.internals")
    except (AttributeError, ImportError) as error:
        return f"torch {torch.__version__} lacks a part that the engine needs ({error})"
    return ""


def _name(network: nn.Module) -> str:
    return getattr(network, "name", type(network).__name__)


def _weights(network: nn.Module) -> list[tuple[int, int]]:
    """Which tensors the network has, and how often each has been written to."""
    tensors = [*network.parameters(), *network.buffers()]
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _hooks(network: nn.Module) -> list[tuple[object, ...]]:
    """Which hooks each module has, and whether it has a `forward` of its own, as some recorders give it."""
    return [
        (*module._forward_hooks, -1, *module._forward_pre_hooks, -1, *module._backward_hooks, -1,
         *module._backward_pre_hooks, vars(module).get("forward"))
        for module in network.modules()
    ]  # fmt: skip

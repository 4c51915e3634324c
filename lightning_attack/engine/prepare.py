"""`prepare`: run a frozen network faster, for its logits and for the gradient of its images."""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from lightning_attack.engine.acceptance import check_gradient, check_logits
from lightning_attack.engine.graphs import BUILDING, UnsupportedError
from lightning_attack.engine.memory import out_of_memory
from lightning_attack.engine.support import Kind, Precision, check_precision, missing
from lightning_attack.engine.tf32 import float32_precision, full_float32
from lightning_attack.engine.watch import Watch

if TYPE_CHECKING:
    from lightning_attack.engine.convolution import Packed
    from lightning_attack.engine.recorded import Constants, Recordings

log = logging.getLogger(__name__)

AnyProgram = Callable[[Tensor], Tensor]
"""`Program`, `RecordedProgram` or `CompiledProgram`: images of one shape to logits."""
StatusCallback = Callable[[str], None]
"""Called with a line for the user when a network is rewritten or compiled, and when that is done."""


def ignore_status(status: str) -> None:
    """Status callback that ignores all messages."""


AUTOCAST = "autocast is on"
HOOKED = "it has hooks, or another forward: attacks that look inside the source or change it need the network itself"
"""Reasons to run the network itself."""

SHAPES = 16
"""Number of image shapes whose programs are kept; the least recently used one is dropped first."""

RECORDED = 4
"""Number of image shapes whose passes stay recorded on CUDA, each with the memory that a pass takes."""


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
    the CPU or on CUDA, training mode, weights that require a gradient, autocast, networks that cannot be written as a
    graph or whose graph gives other logits or gradients, and builds of torch that lack a part the engine needs. The
    network itself is also run while any of its modules has more or fewer hooks than at first, so that these hooks are
    called; that is logged only where bfloat16 was asked for. If its weights or modules change, it is rewritten; see
    `recheck`.

    A second derivative is refused; in one process, several threads may call it.

    Attributes:
        network: the network.
        on_status: see `prepare`.
        patience: number of batches in which the network itself runs images of a shape before that shape is rewritten;
            see `batch`. Where rewriting costs little (`fused` on the CPU) that is done at once, and so is it with
            bfloat16, in which the network itself does not compute.
        records: whether passes may be recorded as CUDA graphs.
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
        self.on_status, self.patience, self.records = on_status, 0, True
        self._reported: set[str] = set()
        self._watch = Watch(network)
        self._reset()

    def _reset(self) -> None:
        self._programs: OrderedDict[Hashable, AnyProgram | None] = OrderedDict()
        self._packed: Packed | None = None
        self._constants: Constants | None = None
        self._recordings: Recordings | None = None
        self._ready: set[Hashable] = set()
        self._seen: Counter[Hashable] = Counter()
        self._seen_now: set[Hashable] = set()
        self._accepted: set[Hashable] = set()
        self._mode, self._trainable = "", False

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights and recordings can be neither copied nor pickled; a copy makes graphs of its own.
        made = {"_programs", "_packed", "_constants", "_recordings", "_ready", "_seen", "_seen_now", "_watch"}
        return {key: value for key, value in vars(self).items() if key not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._watch = Watch(self.network)
        self._reset()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Inside the `with` block, one batch is attacked: `patience` counts these, and weights and modes do not change.

        Hooks may: they are looked at for each pass. If memory runs out, that of recordings is given back.
        """
        self._seen_now = set()
        try:
            with self._watch.trusted():
                yield
        except Exception as error:
            if self.kind == "fused" and out_of_memory(error):
                self._reset()
            raise

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Raises:
            EngineError: it is to compute in bfloat16, and the device does not.
        """
        if self.kind == "eager":
            return self._network_itself(images)
        check_precision(self.precision, images.device)
        if self._watch.hooked():
            if self.precision != "float32":  # not only slower: not in the precision that was asked for
                self._report(HOOKED)
            return self._network_itself(images)
        if not self._worth_it(images):
            return self._network_itself(images)
        if reason := self._reason(images):
            self._report(reason)
            return self._network_itself(images)
        key = _key(images)
        work = *key, _asked(images)
        if work in self._ready or self._programs.get(key, self) is None:
            return self._run(images)
        what = f"'{_name(self.network)}' for {images.shape[-2]} x {images.shape[-1]} pixels"
        self.on_status(f"{'compiling' if self.kind == 'compiled' else 'rewriting'} {what}")
        begin = time.perf_counter()
        logits = self._run(images)
        if self._programs.get(key) is None:
            self.on_status(f"{what}: runs as it is")
        else:
            self.on_status(f"{what}: ready after {time.perf_counter() - begin:.0f} s")
            self._ready.add(work)
        return logits

    def _worth_it(self, images: Tensor) -> bool:
        """Whether images of this shape have come in enough batches to be worth a graph."""
        if not self.patience or self.precision != "float32" or not self._costly(images):
            return True
        work = *_key(images), _asked(images)
        if work not in self._seen_now:
            self._seen_now.add(work)
            self._seen[work] += 1
        return self._seen[work] > self.patience

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

    def recheck(self) -> None:
        """Compare the whole network with what its graphs were made of, before it runs next: a run begins."""
        self._watch.doubt()

    def _reason(self, images: Tensor) -> str:
        """Why no graph can be used; if one can, those that are kept are of the network as it is now."""
        if not self._watch.known():
            with BUILDING:
                if self._watch.changed():
                    self._reset()
            self._mode = "the network is in training mode" if any(map(_trains, self.network.modules())) else ""
            self._trainable = any(weight.requires_grad for weight in self.network.parameters())
        trains = "weights require a gradient" if self._trainable and torch.is_grad_enabled() else ""
        return _outside(images) or self._mode or trains

    def _program(self, images: Tensor) -> AnyProgram | None:
        key = _key(images)
        with BUILDING:
            if key not in self._programs or (_asked(images) and key not in self._accepted):
                try:
                    with torch.inference_mode(False):
                        self._make(key, images)
                except Exception as error:
                    self._give_up(images, error)
                while len(self._programs) > SHAPES:
                    self._accepted.discard(self._programs.popitem(last=False)[0])
            self._programs.move_to_end(key)
            return self._programs[key]

    def _make(self, key: Hashable, images: Tensor) -> None:
        """Make a program for images of this shape, and compare it with the network."""
        if key not in self._programs:
            with self._exactly(images):
                # First of all it runs itself: what it keeps from its first run at a size (a grid, a cache) must be real
                # tensors, and those of a trace have no values.
                with torch.no_grad():
                    expected = self._network_itself(images)
                made = self._built(images)
                check_logits(expected, made, images, self.precision, _in_tf32(images))
                self._programs[key] = made
        program = self._programs[key]
        self._programs.move_to_end(key)
        if _asked(images):
            if program is not None:
                costly = self._costly(images)  # else each pass has memory of its own
                with self._exactly(images):
                    graph = None if self.precision == "float32" else self._graph(images)
                    check_gradient(self.network, program, images, graph, _in_tf32(images), reuses=costly)
                if costly:
                    self._record(program, images)
            self._accepted.add(key)

    def _costly(self, images: Tensor) -> bool:
        return self.kind == "compiled" or _on_cuda(images)

    def _exactly(self, images: Tensor) -> AbstractContextManager[None]:
        """Inside the `with` block, programs are compared; what `compiled` records then, it runs later too."""
        return full_float32() if self.kind == "fused" and _on_cuda(images) else nullcontext()

    def _built(self, images: Tensor) -> AnyProgram:
        # Imported late: these modules need parts of torch that it may lack, see `missing`.
        from lightning_attack.engine.compiled import CompiledProgram
        from lightning_attack.engine.convolution import Packed
        from lightning_attack.engine.program import OneDNN, Program
        from lightning_attack.engine.recorded import Constants, RecordedProgram, Recordings, recorder

        shape, device, bfloat16 = tuple(images.shape), images.device, self.precision == "bf16"
        self._watch.remember()
        if self.kind == "compiled":
            return CompiledProgram(self.network, shape, bfloat16, device)
        if not _on_cuda(images):
            self._packed = self._packed or Packed()
            return Program(self.network, shape, bfloat16, OneDNN(self._packed))
        self._constants = self._constants or Constants()
        self._recordings = self._recordings or Recordings(recorder(device))
        return RecordedProgram(self.network, shape, bfloat16, self._constants, self._recordings, device)

    def _graph(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        from lightning_attack.engine.trace import trace_forward

        return trace_forward(self.network, tuple(images.shape), images.device)

    def _record(self, program: AnyProgram, images: Tensor) -> None:
        """Record the passes of a program that can be recorded; those of the shapes before the last few are dropped."""
        if not self.records or not hasattr(program, "record"):
            return
        try:
            program.record(images)
        except Exception as error:
            if out_of_memory(error):
                torch.cuda.empty_cache()  # the memory of what was recorded so far
            self._report(_first_line(error), "runs without CUDA graphs")
        recorded = [one for one in self._programs.values() if getattr(one, "recording", None) is not None]
        for one in recorded[:-RECORDED]:
            one.recording = None  # type: ignore[union-attr]

    def _give_up(self, images: Tensor, error: Exception) -> None:
        """Run the network itself from now on; but raise where memory is short, since the network itself needs more."""
        if out_of_memory(error):
            raise error
        self._programs[_key(images)] = None
        self._report(_first_line(error))

    def _report(self, reason: str, what: str = "") -> None:
        if reason not in self._reported:
            self._reported.add(reason)
            wide = ", in float32" if self.precision != "float32" and reason != AUTOCAST else ""
            what = what or f"runs without the {self.kind} engine{wide}"
            log.warning("'%s' %s: %s", _name(self.network), what, reason)


def _outside(images: Tensor) -> str:
    """Why no graph can be used for these images; empty if one can."""
    if missing():
        return missing()
    if images.dtype != torch.float32:
        return f"images are {images.dtype}, not float32"
    device = images.device.type
    if device not in ("cpu", "cuda"):
        return f"images are on {device}, which this engine does not know"
    if device == "cpu" and not torch.backends.mkldnn.is_available():
        return "this build of torch has no oneDNN"
    return AUTOCAST if torch.is_autocast_enabled(device) else ""


def _asked(images: Tensor) -> bool:
    """Whether the gradient of these images may be asked for."""
    return images.requires_grad and torch.is_grad_enabled()


def _in_tf32(images: Tensor) -> bool:
    return _on_cuda(images) and "tf32" in float32_precision().values()


def _on_cuda(images: Tensor) -> bool:
    return images.is_cuda


def _trains(module: nn.Module) -> bool:
    return module.training


def _key(images: Tensor) -> tuple[tuple[int, ...], torch.device]:
    return tuple(images.shape), images.device


def _first_line(error: Exception) -> str:
    if type(error).__name__ in ("DataDependentOutputException", "DynamicOutputShapeException"):
        return (
            "what it computes depends on the images' values (`.item()`, `if tensor:`, a mask as index), so it has no "
            "fixed graph"
        )
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, UnsupportedError) else f"{type(error).__name__}: {first}"


def _name(network: nn.Module) -> str:
    return getattr(network, "name", type(network).__name__)

"""`FastNetworks`: attach an engine to the networks of a run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from lightning_attack.engine import (
    Kind,
    Precision,
    PreparedNetwork,
    StatusCallback,
    ignore_status,
    out_of_memory,
    prepare,
)
from lightning_attack.models.worth import Expected, Shape, Worth
from lightning_attack.models.wrapper import SegmentationModel


class FastNetworks:
    """Attaches an engine to networks: they are called as before and return the same logits, faster.

    Of networks inside others (the members of an `Ensemble`, the network of a `ClassMap`) the innermost get the engine.
    On CUDA, and with `compiled`, only the passes of attacks get it, from the second batch of a shape on: there it takes
    long to prepare a network, and scoring runs each image once.

    Args:
        networks: the networks, on [0, 1] images.
        engine: see `engine.prepare`; None = `fused` for images of which so many passes will come that it pays, `eager`
            for others, see `Worth` and `expect`. On CUDA `fused` for all.
        precision: precision of forward and backward passes inside `attacking()`; all others (scoring) are float32.
        on_status: see `engine.prepare`.
        exact: use the engine from the first batch on, so that an image does not depend on the ones before it; and
            record nothing, for a recorded pass need not take the same algorithms as one that is not.
        probe_size: height and width of images that every network takes.

    Raises:
        ValueError: there is no such engine or precision, or they do not go together.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        engine: Kind | None,
        precision: Precision,
        on_status: StatusCallback = ignore_status,
        exact: bool = False,
        probe_size: Shape = (64, 64),
    ) -> None:
        if engine == "eager" and precision != "float32":
            raise ValueError(
                f"engine='eager' runs networks as they are; precision={precision!r} needs fused or compiled"
            )
        self._parts = []
        self._worth, self._chosen, self._all_attacked = Worth(probe_size), engine is not None, precision != "float32"
        for part in dict.fromkeys(part for network in networks for part in innermost(network)):
            prepared, attacking = (
                _prepared(part, engine or "fused", kind, exact, on_status) for kind in ("float32", precision)
            )
            attacking.patience, attacking.records = 0 if exact else 1, not exact
            self._parts.append((part, _Scoring(part, prepared), attacking))
        self._attach()

    def expect(self, expected: Expected | None) -> None:
        """From now on these passes will come, with the engine of this object; None: nobody knows."""
        self._attach()
        self._worth.expect(expected, [] if self._chosen else [part for part, _, _ in self._parts])

    def _attach(self) -> None:
        """Others may have attached an engine of theirs to these networks, and changed the networks since."""
        for part, scoring, attacking in self._parts:
            scoring.prepared.recheck()
            attacking.recheck()
            part.fast = scoring
            part.is_worth = None if self._chosen else partial(self._worth, part)

    @contextmanager
    def attacking(self, images: Tensor | None = None) -> Iterator[None]:
        """Inside the `with` block, one batch is attacked: passes have the attack's precision.

        Args:
            images: the batch; only its shape counts, see `Worth`.
        """
        with ExitStack() as stack:
            stack.enter_context(self._worth.attacking(images))
            worth = [part.is_worth for part, _, _ in self._parts]
            try:
                for part, _, attacking in self._parts:
                    stack.enter_context(attacking.batch())
                    part.fast = attacking.__call__
                    if self._all_attacked:  # what is not rewritten does not compute in bfloat16
                        part.is_worth = None
                yield
            finally:
                for (part, scoring, _), before in zip(self._parts, worth, strict=True):
                    part.fast, part.is_worth = scoring, before


class _Scoring:
    """A network as it is scored: by its engine on the CPU, elsewhere as it is, with images in channels_last.

    Args:
        part: the network.
        prepared: the network with an engine.
    """

    def __init__(self, part: SegmentationModel, prepared: PreparedNetwork) -> None:
        self._outputs, self.prepared, self._layout = part.outputs, prepared, torch.channels_last

    def __call__(self, images: Tensor) -> Tensor:
        kind = self.prepared.kind
        if kind == "fused" and not images.is_cuda:
            logits: Tensor = self.prepared(images)
            return logits
        if kind != "eager" and images.is_cuda and self._layout == torch.channels_last:
            try:
                return self._outputs(images.contiguous(memory_format=self._layout))[0]
            except Exception as error:
                if out_of_memory(error):
                    raise
                # It takes a layout for granted, as `view` does; if something else is wrong it will say so again.
                self._layout = torch.contiguous_format
        return self._outputs(images)[0]


def weak_callback(on_status: StatusCallback) -> StatusCallback:
    """Call a bound method for as long as its object exists: networks keep the callback, and outlive the module."""
    method = weakref.WeakMethod(on_status)

    def said(status: str) -> None:
        known = method()
        if known is not None:
            known(status)

    return said


def _prepared(
    part: SegmentationModel, engine: Kind, precision: Precision, exact: bool, on_status: StatusCallback
) -> PreparedNetwork:
    """The network with an engine, kept with the network itself: runs that share a network rewrite it once."""
    known = part.__dict__.setdefault("_prepared", {})
    key = engine, precision, exact, part.training, part.stride
    if key not in known:
        known[key] = prepare(_Whole(part), kind=engine, precision=precision)
    known[key].on_status = on_status
    return known[key]


def innermost(network: nn.Module) -> list[SegmentationModel]:
    """The networks inside a network that hold no others, or itself: those that are run."""
    parts = [part for part in network.modules() if isinstance(part, SegmentationModel)]
    return [part for part in parts if not any(isinstance(inner, SegmentationModel) for inner in part.network.modules())]


class _Whole(nn.Module):
    """A model from images to logits without its own hooks, which are called outside of the engine."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.name, self._outputs, self.training = model.name, model.outputs, model.training
        # The model's own tables, so that a network or a tensor that is put in place of another is seen here, too.
        self.__dict__.update(_modules=model._modules, _buffers=model._buffers)

    def forward(self, images: Tensor) -> Tensor:
        return self._outputs(images)[0]

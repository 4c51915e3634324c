"""`FastNetworks`: attach an engine to the networks of a run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_attack.engine import Kind, Precision, PreparedNetwork, StatusCallback, ignore_status, prepare
from lightning_attack.models.wrapper import SegmentationModel

WORTH_REWRITING = 320 * 320
"""Pixels of an image from which rewriting, which takes a second or two, pays; the default where no engine is named."""


class FastNetworks:
    """Attaches an engine to networks: they are called as before and return the same logits, faster.

    Of networks inside others (the members of an `Ensemble`, the network of a `ClassMap`) the innermost get the engine.

    Args:
        networks: the networks, on [0, 1] images.
        engine: see `engine.prepare`; None = `fused` for images of 320 x 320 pixels or more, `eager` for smaller ones.
        precision: precision of forward and backward passes inside `attacking()`; all others (scoring) are float32.
        on_status: see `engine.prepare`.

    Raises:
        ValueError: there is no such engine or precision, or they do not go together.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        engine: Kind | None,
        precision: Precision,
        on_status: StatusCallback = ignore_status,
    ) -> None:
        if engine == "eager" and precision != "float32":
            raise ValueError(
                f"engine='eager' runs networks as they are; precision={precision!r} needs fused or compiled"
            )
        self._parts = []
        for part in dict.fromkeys(part for network in networks for part in _innermost(network)):
            scoring, attacking = (
                _prepared(part, engine or "fused", kind, on_status) for kind in ("float32", precision)
            )
            self._parts.append((part, scoring, attacking))
            part.fast = scoring.__call__
            part.fast_from = WORTH_REWRITING if engine is None and precision == "float32" else 0

    @contextmanager
    def attacking(self) -> Iterator[None]:
        """Inside the `with` block, passes have the attack's precision."""
        try:
            for part, _, attacking in self._parts:
                part.fast = attacking.__call__
            yield
        finally:
            for part, scoring, _ in self._parts:
                part.fast = scoring.__call__


def weak_callback(on_status: StatusCallback) -> StatusCallback:
    """Call a bound method for as long as its object exists: networks keep the callback, and outlive the module."""
    method = weakref.WeakMethod(on_status)

    def said(status: str) -> None:
        known = method()
        if known is not None:
            known(status)

    return said


def _prepared(
    part: SegmentationModel, engine: Kind, precision: Precision, on_status: StatusCallback
) -> PreparedNetwork:
    """The network with an engine, kept with the network itself: runs that share a network rewrite it once."""
    known = part.__dict__.setdefault("_prepared", {})
    key = engine, precision, part.training
    if key not in known:
        known[key] = prepare(_Whole(part), kind=engine, precision=precision)
    known[key].on_status = on_status
    return known[key]


def _innermost(network: nn.Module) -> list[SegmentationModel]:
    parts = [part for part in network.modules() if isinstance(part, SegmentationModel)]
    return [part for part in parts if not any(isinstance(inner, SegmentationModel) for inner in part.network.modules())]


class _Whole(nn.Module):
    """A model from images to logits without its own hooks, which are called outside of the engine."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.network, self.name, self._outputs = model.network, model.name, model.outputs
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        return self._outputs(images)[0]

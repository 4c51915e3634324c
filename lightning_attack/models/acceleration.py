"""`FastNetworks`: the networks of a run, run by an engine."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_attack.engine import Kind, Precision, PreparedNetwork, Say, prepare, silent
from lightning_attack.models.wrapper import SegmentationModel

WORTH = 320 * 320
"""Pixels of an image from which on rewriting a network pays, if nothing is said: it takes a second or two."""


class FastNetworks:
    """Let networks give their logits by an engine; whoever calls them sees no difference.

    Networks inside others (the members of an `Ensemble`, the one behind a `ClassMap`) are made fast, and those around
    them left as they are.

    Args:
        networks: the networks, on [0, 1] images.
        engine: see `engine.prepare`; None = `fused` for images of 320 x 320 pixels or more, `eager` for smaller ones.
        precision: what passes within `attacking` compute in; everything else, as scoring, is float32.
        say: see `engine.prepare`.

    Raises:
        ValueError: there is no such engine or precision, or they do not go together.
    """

    def __init__(
        self, networks: Sequence[nn.Module], engine: Kind | None, precision: Precision, say: Say = silent
    ) -> None:
        if engine == "eager" and precision != "float32":
            raise ValueError(
                f"engine='eager' runs networks as they are; precision={precision!r} needs fused or compiled"
            )
        self._parts = []
        for part in dict.fromkeys(part for network in networks for part in _innermost(network)):
            scoring, attacking = (_prepared(part, engine or "fused", one, say) for one in ("float32", precision))
            self._parts.append((part, scoring, attacking))
            part.fast, part.fast_from = scoring.__call__, WORTH if engine is None and precision == "float32" else 0

    @contextmanager
    def attacking(self) -> Iterator[None]:
        """While it lasts, passes are in the attack's precision."""
        try:
            for part, _, attacking in self._parts:
                part.fast = attacking.__call__
            yield
        finally:
            for part, scoring, _ in self._parts:
                part.fast = scoring.__call__


def weakly(say: Say) -> Say:
    """The method of an object, which is not kept by it: networks outlive who runs them."""
    method = weakref.WeakMethod(say)

    def said(status: str) -> None:
        known = method()
        if known is not None:
            known(status)

    return said


def _prepared(part: SegmentationModel, engine: Kind, precision: Precision, say: Say) -> PreparedNetwork:
    """The prepared network, which stays with the network: runs that share it have it rewritten once."""
    known = part.__dict__.setdefault("_prepared", {})
    key = engine, precision, part.training
    if key not in known:
        known[key] = prepare(_Whole(part), kind=engine, precision=precision)
    known[key].say = say
    return known[key]


def _innermost(network: nn.Module) -> list[SegmentationModel]:
    parts = [part for part in network.modules() if isinstance(part, SegmentationModel)]
    return [part for part in parts if not any(isinstance(inner, SegmentationModel) for inner in part.network.modules())]


class _Whole(nn.Module):
    """From images to logits, for an engine; without the hooks of the model itself, which are called around it."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.network, self.name, self._outputs = model.network, model.name, model.outputs
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        return self._outputs(images)[0]

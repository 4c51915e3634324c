"""`TransformedSource`: the source as an attack with source transforms runs it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attack.attacks.base import Model
from lightning_attack.attacks.errors import AttackError
from lightning_attack.attacks.random import Draws
from lightning_attack.attacks.source_transforms.base import SourceTransform
from lightning_attack.attacks.source_transforms.graph import SourceGraph
from lightning_attack.attacks.source_transforms.kept import Kept, identity, kept
from lightning_attack.attacks.source_transforms.run import Run
from lightning_attack.attacks.source_transforms.traced import TracedNetwork, trace_network
from lightning_attack.engine.autocast import autocast_is_on
from lightning_attack.engine.support import missing

_TOLD: ContextVar[Callable[[str], None] | None] = ContextVar(
    "told of source transforms that are left out", default=None
)


@contextmanager
def left_out_told_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Inside the `with` block, each attack that has to leave out source transforms says so by a call, not a warning."""
    token = _TOLD.set(listener)
    try:
        yield
    finally:
        _TOLD.reset(token)


class TransformedSource:
    """Images to logits by the network's graph with the changes of source transforms.

    The graph is that of the network inside a `SegmentationModel`, after normalisation and padding, of each member of an
    ensemble, or of the model itself. It is traced and changed once for each shape of images, which takes a second or
    two, and kept with the network. While it runs, it stands in for the network's own `forward`: engines then step
    aside, as they do for hooks, so that it runs operator by operator, in float32.

    Args:
        model: the source, frozen.
        transforms: applied in order; idle ones are left out.

    Raises:
        AttackError: the model is no `nn.Module`; at a call, it cannot be traced, or the graph has nothing that a
            transform could change.
    """

    def __init__(self, model: Model, transforms: Sequence[SourceTransform]) -> None:
        self.model = check_traceable(model)
        self.transforms = [transform for transform in transforms if not transform.idle]
        self.needs_clean = any(transform.needs_clean for transform in self.transforms)
        self._identities = [*map(identity, self.transforms)]
        # A network that is several members is changed once.
        found = {id(network): (name, network) for name, network in _networks(self.model)}
        self._networks = list(found.values())
        self._kept: dict[nn.Module, Kept[TracedNetwork]] = {network: kept(network) for _, network in self._networks}
        self._said: set[str] = set()

    def __call__(self, images: Tensor, draws: Draws, step: int, clean: Tensor | None = None) -> Tensor:
        """Logits of images.

        Args:
            images: (B, 3, H, W).
            draws: the batch's random numbers.
            step: number of the attack's step, from 0.
            clean: the clean images in the same view, if a transform needs them.
        """
        run = Run(draws, step)
        with self._instead(run):
            if clean is not None and self.needs_clean:
                run.restart(recording=True)
                with torch.no_grad():
                    self.model(self._shown(clean, draws))
            run.restart(recording=False)
            logits: Tensor = self.model(images)
        if not run.ran:
            names = ", ".join(f"'{name}'" for name, _ in self._networks)
            error = AttackError(
                f"source transforms change the networks inside the source ({names}), and its forward pass calls none "
                "of them, only parts of theirs. Let it call them on images, or give a plain module as the source"
            )
            _as_it_is(self.transforms, error, self._said)
        return logits

    def _shown(self, clean: Tensor, draws: Draws) -> Tensor:
        """The clean images as the transforms want to have them shown.

        Raises:
            AttackError: one wants them otherwise than another.
        """
        asking = [transform for transform in self.transforms if transform.needs_clean]
        shown = [transform.clean_images(clean, draws) for transform in asking]
        for transform, images in zip(asking, shown, strict=True):
            if images is not shown[0]:
                names = [type(one).__name__ for one in (asking[0], transform)]
                raise AttackError(
                    f"{' and '.join(names)} both take features of the clean images, and one of them changes these "
                    "images before (PerturbationDecay adds noise: sigma=0 leaves it out); give one of the two"
                )
        return shown[0]

    def offered(self) -> list[tuple[str, dict[str, float]]]:
        """Of each network its name, the nodes among which the transforms chose in the last pass, and their depths.

        Raises:
            AttackError: the pass was one of the network as it is.
        """
        found = []
        for name, network in self._networks:
            found.append((name, self._kept[network].last().graph.offered))
        return found

    @contextmanager
    def _instead(self, run: Run) -> Iterator[None]:
        """Inside the `with` block, the networks' graphs stand in for their own `forward`."""
        with ExitStack() as stack:
            for number, (name, network) in enumerate(self._networks):
                stand_in = _StandIn(self, network, name, number, run)
                before = network.__dict__.get("forward")
                stack.callback(_restore, network, before)
                # The instance's own `forward` goes before that of its class.
                network.__dict__["forward"] = stand_in
            yield


class _StandIn:
    """`forward` of a network by its changed graph."""

    def __init__(
        self,
        source: TransformedSource,
        network: nn.Module,
        name: str,
        number: int,
        run: Run,
    ) -> None:
        self._original, self._name, self._number, self._run = network.forward, name, number, run
        self._known, self._transforms = source._kept[network], source.transforms
        self._identities, self._said = source._identities, source._said

    def __call__(self, images: Tensor, *others: Any, **named: Any) -> Any:
        self._run.enter(images, self._number)
        try:
            if others or named:
                raise AttackError(
                    f"source transforms take networks of images alone; '{self._name}' is given more than that"
                )
            made = self._made(images)
        except AttackError as error:
            _as_it_is(self._transforms, error, self._said)
            return self._original(images, *others, **named)
        for reason in made.missed:  # a graph that is kept serves other attacks, too: each of them says it
            _say(f"the source is attacked without one of the source transforms: {reason}", self._said)
        made.graph.run = self._run
        try:
            return made(images)
        finally:
            made.graph.run = None

    def _made(self, images: Tensor) -> TracedNetwork:
        device = images.device
        key = tuple(images.shape), images.dtype, device, autocast_is_on(device.type)

        def changed() -> TracedNetwork:
            plain = self._known.get(key, lambda: trace_network(self._original, self._name, images))
            made = plain.copied(self._name, self._number)
            made.missed = _rewrite(made.graph, self._transforms)
            made.module = made.graph.ready()
            return made

        return self._known.get((*key, self._number, *self._identities), changed)


def check_traceable(model: Model) -> nn.Module:
    """The model, if it can have a graph.

    Raises:
        AttackError: it cannot, whatever the images.
    """
    if not isinstance(model, nn.Module):
        raise AttackError("source transforms change the graph of an nn.Module; a function has none: make it a module")
    if missing():
        raise AttackError(f"source transforms need the graph of the source: {missing()}; take an attack without them")
    return model


def transformed(model: Model, transforms: Sequence[SourceTransform]) -> TransformedSource | None:
    """The model with source transforms; None if there are none, or none is required and the model can have no graph.

    Raises:
        AttackError: the model can have no graph, and a transform is required.
    """
    changing = [transform for transform in transforms if not transform.idle]
    if not changing:
        return None
    try:
        return TransformedSource(model, changing)
    except AttackError as error:
        _as_it_is(changing, error, set())
        return None


def _rewrite(graph: SourceGraph, transforms: Sequence[SourceTransform]) -> list[str]:
    """Apply the transforms, and leave out those that are not required and find nothing to change.

    Returns:
        Why, for each of those.

    Raises:
        AttackError: a required transform finds nothing, or none finds anything.
    """
    missed: list[AttackError] = []
    for transform in transforms:
        try:
            before = graph.written()
            transform.rewrite(graph)
            if graph.written() == before:
                raise AttackError(
                    f"{type(transform).__name__} has changed nothing in the graph of '{graph.name}'. Its `rewrite` "
                    "must call `follow`, `follow_live` or `before` of the graph for each node that it changes; if "
                    "its settings change nothing, `idle` must say so"
                )
        except AttackError as error:
            if transform.required:
                raise
            missed.append(error)
    if len(missed) == len(transforms):
        raise missed[0]
    return [str(reason) for reason in missed]


def _as_it_is(transforms: Sequence[SourceTransform], error: AttackError, said: set[str]) -> None:
    """Say that the source is attacked as it is; raise the error if a transform is required."""
    if any(transform.required for transform in transforms):
        raise error
    _say(f"the source is attacked as it is: {error}", said)


def _say(message: str, said: set[str]) -> None:
    """Tell what is left out, once an attack."""
    if message in said:
        return
    said.add(message)
    listener = _TOLD.get()
    if listener is None:
        warnings.warn(message, stacklevel=4)
    else:
        listener(message)


def _networks(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The networks inside a model, those of each member of an ensemble, with their names."""
    name = getattr(model, "name", None) or name or type(model).__name__
    ensemble: Any = model
    if hasattr(model, "members") and hasattr(model, "by"):  # an ensemble, perhaps with weights for each image
        for member in ensemble.members:
            yield from _networks(member)
    elif getattr(model, "runs_network", False):
        yield from _networks(ensemble.network, name)
    else:
        yield name, model


def _restore(network: nn.Module, before: Any) -> None:
    if before is None:
        del network.__dict__["forward"]
    else:
        network.__dict__["forward"] = before

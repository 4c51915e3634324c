"""`Recorder`: run a model and record the outputs of named layers."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from lightning_attack.attacks.base import Model
from lightning_attack.attacks.errors import AttackError

AUTO = "auto"
"""The convolution after three fifths of the model's convolutions: late in the encoder of the usual networks."""


class Recorder:
    """A model that returns its logits and the outputs of named layers.

    A layer is named as in `model.named_modules()`, such as `network.encoder.layer3`. In a program of `torch.export`
    layers have lost their modules; there the nodes of the graph are the layers, such as `network.conv2d_31`. `auto` is
    the convolution, in the order of definition, after three fifths of all.

    Args:
        model: the model; it is changed for the duration of a call only.
        layers: names of layers.

    Attributes:
        extents: of the last call, for each layer inside of a `SegmentationModel` the height and width that this showed
            to its network: those of the images, or larger ones, padded at the bottom and the right.

    Raises:
        ValueError: the model has no such layer, or, at a call, the layer did not run, ran more than once, or
            returned no tensor.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> logits, features = Recorder(model, ["1"])(torch.zeros(1, 3, 5, 5))
        >>> logits.shape, features["1"].shape
        (torch.Size([1, 2, 5, 5]), torch.Size([1, 4, 5, 5]))
        >>> Recorder(model, ["3"])
        Traceback (most recent call last):
            ...
        ValueError: the source has no layer '3'; the nearest are 0, 1, 2
    """

    def __init__(self, model: Model, layers: Sequence[str]) -> None:
        self.model = model
        self._modules: dict[str, nn.Module] = {}
        self._nodes: dict[str, tuple[fx.GraphModule, str]] = {}
        self._tapped: list[_TappedGraph] = []
        self._networks: dict[str, nn.Module] = {}
        self.extents: dict[str, tuple[int, int]] = {}
        if not layers:
            return
        if not isinstance(model, nn.Module):
            raise ValueError(f"layers {', '.join(layers)}: only an nn.Module has layers, not a function")
        modules, nodes = dict(model.named_modules()), dict(_nodes(model))
        for layer in layers:
            name = _auto(model, modules, nodes) if layer == AUTO else layer
            if name in nodes:
                self._nodes[layer] = nodes[name]
            elif name and name in modules:
                self._modules[layer] = modules[name]
            else:
                raise ValueError(f"the source has no layer '{layer}'; {_nearest(layer, [*modules, *nodes])}")
            if (network := _network_around(name, modules)) is not None:
                self._networks[layer] = network
        for graph in {id(graph): graph for graph, _ in self._nodes.values()}.values():
            wanted = {node: layer for layer, (owner, node) in self._nodes.items() if owner is graph}
            self._tapped.append(_TappedGraph(graph, wanted))

    def __call__(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of images, and the outputs of the layers by name."""
        found: dict[str, list[Any]] = defaultdict(list)
        self.extents = {}
        with ExitStack() as stack:
            for layer, network in self._networks.items():
                stack.callback(network.register_forward_pre_hook(partial(self._measure, layer, images)).remove)
            for layer, module in self._modules.items():
                stack.callback(module.register_forward_hook(partial(_keep_output, found[layer])).remove)
            for tapped in self._tapped:
                stack.enter_context(tapped.recording(found))
            logits = self.model(images)
        for layer in (*self._modules, *self._nodes):
            outputs = found[layer]
            if not outputs:
                raise AttackError(f"layer '{layer}' did not run in the source; name another")
            if len(outputs) > 1:
                raise AttackError(
                    f"layer '{layer}' ran {len(outputs)} times in one pass of the source; name another, or, if the "
                    "source runs on windows, attack each window on its own"
                )
            if not isinstance(outputs[0], Tensor):
                kind = type(outputs[0]).__name__
                raise AttackError(f"layer '{layer}' returned a {kind}, no tensor in the source; name another")
        return logits, {layer: outputs[0] for layer, outputs in found.items()}

    def _measure(self, layer: str, images: Tensor, network: nn.Module, given: tuple[Any, ...]) -> None:
        """Note the size of what a network is shown, if it can be the padded images."""
        shown = given[0] if given else None
        if isinstance(shown, Tensor) and shown.ndim == 4:
            (height, width), (least_height, least_width) = shown.shape[-2:], images.shape[-2:]
            # A smaller one is of a defence that resizes: its features cover the image as a whole.
            if height >= least_height and width >= least_width:
                self.extents[layer] = height, width


def _keep_output(found: list[Any], _module: nn.Module, _given: tuple[Any, ...], output: Any) -> Any:
    return _kept(found, output)


def _kept(found: list[Any], output: Any) -> Any:
    """Record an output; what the network goes on with, since its next layer may write over what it is given."""
    found.append(output)
    return output.clone() if isinstance(output, Tensor) else output


def _network_around(layer: str, modules: dict[str, nn.Module]) -> nn.Module | None:
    """The innermost network around a layer of which a module around it says that it runs it on images."""
    found = None
    for name, module in modules.items():  # from the outside to the inside
        inner = f"{name}.network".removeprefix(".")
        if getattr(module, "runs_network", False) and f"{layer}.".startswith(f"{inner}."):
            found = modules.get(inner, found)
    return found


def _nodes(model: nn.Module) -> Iterator[tuple[str, tuple[fx.GraphModule, str]]]:
    """The computing nodes of all graph modules in a model, by the names that users give them."""
    for prefix, module in model.named_modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.op == "call_function":
                    yield f"{prefix}.{node.name}".removeprefix("."), (module, node.name)


def _auto(model: nn.Module, modules: dict[str, nn.Module], nodes: dict[str, tuple[fx.GraphModule, str]]) -> str:
    if hasattr(model, "members"):
        raise ValueError(
            f"layers: [{AUTO}] is a layer of one network, but the source is an ensemble by "
            f"{getattr(model, 'by', '?')}; set by: loss, or name layers of its members"
        )
    convolutions = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    convolutions += [name for name in nodes if name.rpartition(".")[2].startswith("conv2d")]
    if not convolutions:
        raise ValueError("the source has no convolution to take features from; name its layers")
    return convolutions[len(convolutions) * 3 // 5]


def _nearest(layer: str, names: Sequence[str]) -> str:
    names = [name for name in names if name]
    close = get_close_matches(layer, names, n=3, cutoff=0) if names else []
    return f"the nearest are {', '.join(sorted(close))}" if close else "it has no named layers at all"


class _TappedGraph:
    """A graph module and a copy of it that also hands out the outputs of some nodes, and goes on with copies of them.

    The copy shares the weights. It is made once, because that takes longer than a step on small images.
    """

    def __init__(self, graph: fx.GraphModule, wanted: dict[str, str]) -> None:
        copied = copy.deepcopy(graph.graph)
        for node in list(copied.nodes):
            if node.name in wanted:
                with copied.inserting_after(node):
                    kept = copied.call_function(self._keep, (wanted[node.name], node))
                node.replace_all_uses_with(kept, delete_user_cb=lambda user, kept=kept: user is not kept)
        self._graph, self._copy = graph, fx.GraphModule(graph, copied)
        self._found: dict[str, list[Any]] = {}

    def _keep(self, layer: str, value: Any) -> Any:
        return _kept(self._found[layer], value)

    @contextmanager
    def recording(self, found: dict[str, list[Any]]) -> Iterator[None]:
        """Inside the `with` block, the graph appends the outputs of the nodes to `found`, by layer."""
        self._found = found
        # The instance's own `forward` goes before that of its class.
        self._graph.__dict__["forward"] = self._copy.forward
        try:
            yield
        finally:
            del self._graph.__dict__["forward"]
            self._found = {}

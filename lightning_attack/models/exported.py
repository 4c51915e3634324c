"""Networks from files of `torch.export` (`.pt2`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from lightning_attack.models.archive import read_program
from lightning_attack.models.program_sizes import FREE, said, size_limits
from lightning_attack.models.wrapper import ModelError, SegmentationModel

METADATA = "lightning_attack.json"
"""Name of the entry of a `.pt2` file under which `export_model` writes what a network is, as JSON."""


class ExportedModel(SegmentationModel):
    """A network saved with `torch.export.save`: architecture and weights in one file, no code of its own needed.

    Files that `export_model` (`python main.py export`) wrote say their name, classes and sizes themselves; of others
    that is read off the first output. `classes` holds the class names or None, `metadata` all that the file says.

    Args:
        path: the `.pt2` file.
        num_classes: number of classes; None reads it off the file.
        mean: subtracted first; the default leaves [0, 1] images as they are (most exported networks normalise inside).
        std: divided by.
        stride: images are padded to multiples of it.
        name: name in tables and folders; the default is the one in the file, or the file's name without suffix.

    Raises:
        ModelError: no such file, not an exported program, more than that (see `read_program`), or images of a size that
            the network does not take.
    """

    def __init__(
        self,
        path: str,
        num_classes: int | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        stride: int = 1,
        name: str | None = None,
    ) -> None:
        program, metadata, network = load_program(path)
        known = metadata.get("num_classes")
        super().__init__(
            network,
            known if num_classes is None else num_classes,
            mean,
            std,
            stride,
            name or metadata.get("name") or Path(path).stem,
        )
        self.metadata = metadata
        (least, most), *self._size = size_limits(program, metadata)
        if (least, most) != (1, FREE):
            self.limit_batch(least, most)
        self.classes = tuple(metadata["classes"]) if metadata.get("classes") else None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits; an exported network has no auxiliary ones."""
        given = list(images.shape[-2:])
        padded = [side + -side % self.stride for side in given]
        if not all(least <= side <= most for side, (least, most) in zip(padded, self._size, strict=True)):
            raise self._refusal(f"was exported for images of size {said(self._size)}, not {given}")
        try:
            return super().outputs(images)
        except AssertionError as error:  # a condition on sizes that the program carries
            condition = str(error).strip().partition("\n")[0]
            raise self._refusal(f"was not exported for images of size {given} ({condition})") from error

    def _refusal(self, reason: str) -> ModelError:
        return ModelError(
            f"network '{self.name}' {reason}; set data.size and model.probe_size, or the network's stride, or export "
            "it again for other sizes"
        )

    def train(self, mode: bool = True) -> ExportedModel:
        """Set the flag only: an exported network has no modes, and its own `train()` and `eval()` refuse."""
        self.training = mode
        return self


def load_program(path: str) -> tuple[torch.export.ExportedProgram, dict[str, Any], nn.Module]:
    """The program of a `.pt2` file, the metadata of `export_model` in it, and the network, which runs on any device.

    Raises:
        ModelError: no such file, not an exported program, or more than that (see `read_program`).
    """
    content = read_program(path)
    extra = {METADATA: ""}
    try:
        program = torch.export.load(content, extra_files=extra)
        metadata = _parse(extra[METADATA])
        # Guards hold what happened to be true of the traced sizes; `export_model` has compared others already.
        return program, metadata, movable(program.module(check_guards=metadata.get("size") != "any"))
    except Exception as error:  # torch.export raises whatever its zip and JSON readers raise
        raise ModelError(f"'{path}' is not a file of torch.export.save ({type(error).__name__}: {error})") from error


def movable(network: nn.Module) -> nn.Module:
    """An exported program that runs wherever `to` brings it, and not only on the device it was exported on.

    `torch.export` writes that device into the program: into assertions, which are dropped, and into the calls that make
    tensors (`arange`, `zeros`) or bring them to it, which take that of the images instead. Constant tensors become
    buffers, which `to` knows. The program is changed.

    Example:
        >>> class Rows(nn.Module):
        ...     def forward(self, x):
        ...         return x + torch.arange(x.shape[2], device=x.device)[:, None]
        >>> program = torch.export.export(Rows(), (torch.zeros(1, 3, 2, 2),)).module()
        >>> movable(program)(torch.zeros(1, 3, 2, 2, device="meta")).device
        device(type='meta')
    """
    for part in network.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                delattr(part, name)
                part.register_buffer(name, value, persistent=False)
        if isinstance(part, fx.GraphModule):
            _follow_the_input(part)
    return network


def _follow_the_input(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        if node.target == torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
        elif any(isinstance(one, torch.device) for one in (*node.args, *node.kwargs.values())):
            with module.graph.inserting_before(node):
                device = module.graph.call_function(getattr, (_tensor(module), "device"))
            node.args = tuple(device if isinstance(one, torch.device) else one for one in node.args)
            node.kwargs = {key: device if isinstance(one, torch.device) else one for key, one in node.kwargs.items()}
    module.recompile()


def _tensor(module: fx.GraphModule) -> fx.Node:
    """A tensor that a graph is given; graphs inside others may have none, and get an empty one that moves with them."""
    for node in module.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor):
            return node
    module.register_buffer("place", torch.empty(0), persistent=False)
    return module.graph.get_attr("place")


def _parse(text: str | bytes) -> dict[str, Any]:
    """The metadata of a file; nothing for those of other programs."""
    content = json.loads(text) if text else {}
    return content if isinstance(content, dict) else {}

"""`meet`: source and targets are looked at once, side by side, before anything depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from lightning_attack.common.windows import Windows
from lightning_attack.models.probe import probe
from lightning_attack.models.wrapper import ModelError, SegmentationModel, as_segmentation_model, with_windows


@dataclass(frozen=True)
class Networks:
    """The networks that a run scores.

    Attributes:
        scored: the networks, the source among them.
        white_box: in the same order by name, whether what was learnt from it is used against it.
        source_name: the source's name among them.
        num_classes: of all of them.
    """

    scored: list[SegmentationModel]
    white_box: dict[str, bool]
    source_name: str
    num_classes: int


def meet(
    source: SegmentationModel,
    targets: Mapping[str, nn.Module],
    windows: Windows | None,
    probe_size: tuple[int, int],
) -> Networks:
    """Show all networks one image of noise: which targets are the source, or members of it, and do all go together?

    Args:
        source: the source.
        targets: by name; what is no `SegmentationModel` is wrapped as it is.
        windows: on which they are to be run.
        probe_size: height and width of the image.

    Raises:
        ModelError: the networks differ in their number of classes, one fails, or a name stands for two networks.

    Example:
        >>> source = SegmentationModel(nn.Identity(), name="a")
        >>> meet(source, {"b": nn.Softmax(1)}, None, (2, 2)).white_box
        {'a': True, 'b': False}
        >>> meet(source, {"b": nn.Softmax(1), "c": nn.Identity()}, None, (2, 2)).white_box     # c is the source
        {'b': False, 'c': True}
    """
    logits = probe(source, source.name, probe_size)
    members = [probe(member, f"{source.name}[{number}]", probe_size)
               for number, member in enumerate(getattr(source, "members", []))]  # fmt: skip
    scored: list[SegmentationModel] = []
    white_box: dict[str, bool] = {}
    source_name = ""
    for name, network in targets.items():
        target = with_windows(as_segmentation_model(network, name), windows)
        found = probe(target, name, probe_size)
        if found.shape != logits.shape:
            raise ModelError(
                f"target '{name}' has {found.shape[1]} classes, source '{source.name}' has {logits.shape[1]}; all "
                "networks must have the classes of the data"
            )
        same = torch.equal(found, logits)
        if name == source.name and not same:
            raise ModelError(f"source and a target are both named '{name}' but differ; rename one (name: ...)")
        white_box[name] = same or any(torch.equal(found, member) for member in members)
        source_name = source_name or (name if same else "")
        scored.append(source if same else target)
    if source_name:
        return Networks(scored, white_box, source_name, logits.shape[1])
    return Networks([source, *scored], {source.name: True} | white_box, source.name, logits.shape[1])

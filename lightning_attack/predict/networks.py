"""`identify_networks`: run all networks of a run on one probe image. Same classes? Which target is the source?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_attack.common.labels import IGNORE_INDEX, class_advice
from lightning_attack.common.windows import Windows
from lightning_attack.models.fingerprint import fingerprint
from lightning_attack.models.probe import close, noise, probe, probe_pair
from lightning_attack.models.wrapper import (
    ModelError,
    SegmentationModel,
    as_segmentation_model,
    check_abstains,
    with_windows,
    without_engines,
)
from lightning_attack.predict.doubt import Doubt
from lightning_attack.predict.network_doubts import doubts_about_network, not_repeatable, watch_outputs


@dataclass(frozen=True)
class ScoredNetworks:
    """The networks that a run scores.

    Attributes:
        scored: the networks, the source among them.
        white_box: by name, in the same order: whether the attack uses this network.
        source_name: name of the source among them.
        num_classes: number of classes, the same for all.
        doubts: what looks wrong about them, see `predict.network_doubts`.
    """

    scored: list[SegmentationModel]
    white_box: dict[str, bool]
    source_name: str
    num_classes: int
    doubts: list[Doubt]


def identify_networks(
    source: SegmentationModel,
    targets: Mapping[str, nn.Module],
    windows: Windows | None,
    probe_size: tuple[int, int],
) -> ScoredNetworks:
    """Run all networks on one image of noise, and find which targets are the source or members of it.

    Two networks are the same if they give the same logits of it, and of an image of another size: one that pads to
    another stride, or makes images smaller, says the same of the first and something else of a photo.

    Networks that take one batch only are limited to it, see `probe` and `probe_pair`.

    Args:
        source: the source.
        targets: networks by name; what is no `SegmentationModel` is wrapped as it is.
        windows: the windows of an image on which they are run; None: the whole image.
        probe_size: height and width of the image of noise.

    Raises:
        ModelError: the networks differ in their number of classes or have more than 255, one fails, one has another
            inside that abstains, or a name stands for two networks.

    Example:
        >>> source = SegmentationModel(nn.Identity(), name="a")
        >>> identify_networks(source, {"b": nn.Softmax(1)}, None, (2, 2)).white_box
        {'a': True, 'b': False}
        >>> identify_networks(source, {"b": nn.Softmax(1), "c": nn.Identity()}, None, (2, 2)).white_box  # c is it
        {'b': False, 'c': True}
    """
    doubts: dict[str, list[Doubt]] = {}

    def run(network: SegmentationModel, name: str) -> Tensor:
        check_abstains(network, name)
        with watch_outputs(name, network) as about_outputs:
            found = probe(network, name, probe_size)
        doubts[name] = [*doubts_about_network(name, network), *about_outputs]
        return found

    logits = run(source, source.name)
    if logits.shape[1] > IGNORE_INDEX:
        raise ModelError(
            f"source '{source.name}' has {logits.shape[1]} classes; {IGNORE_INDEX} marks ignored pixels, so there "
            f"may be {IGNORE_INDEX} (0..{IGNORE_INDEX - 1}): merge some by the groups of ClassMap"
        )
    members = []
    for number, member in enumerate(getattr(source, "members", [])):
        members.append(probe(member, name := f"{source.name}[{number}]", probe_size))
        probe_pair(member, name, probe_size, members[-1])
    probe_pair(source, source.name, probe_size, logits)
    scored: list[SegmentationModel] = []
    white_box: dict[str, bool] = {}
    source_name = ""
    for name, network in ((str(name), network) for name, network in targets.items()):
        if name in white_box or not name:
            raise ModelError(f"targets: each needs a name of its own, and one is {name!r}{' again' * bool(name)}")
        target = with_windows(as_segmentation_model(network, name), windows)
        found = run(target, name)
        if found.shape != logits.shape:
            raise ModelError(
                f"target '{name}' has {found.shape[1]} classes, source '{source.name}' has {logits.shape[1]}; "
                f"{class_advice(logits.shape[1], found.shape[1])}"
            )
        same = torch.equal(found, logits) and _alike(target, source, probe_size)
        if same and target.abstains:  # on noise two of them may abstain everywhere
            same = fingerprint(target) == fingerprint(source)
        if name == source.name and not same:
            raise ModelError(f"source and a target are both named '{name}' but differ; rename one (name: ...)")
        white_box[name] = same or any(
            torch.equal(found, said) and _alike(target, member, probe_size)
            for member, said in zip(getattr(source, "members", []), members, strict=True)
        )
        source_name = source_name or (name if same else "")
        if not same and probe_pair(target, name, probe_size, found):
            doubts[name].append(not_repeatable(name))
        scored.append(source if same else target)
    if not source_name:
        source_name, scored, white_box = source.name, [source, *scored], {source.name: True} | white_box
    # A source that goes by the name of a target is listed once.
    said = [doubt for name in white_box for doubt in doubts[name]]
    return ScoredNetworks(scored, white_box, source_name, logits.shape[1], said)


def _alike(one: nn.Module, other: nn.Module, size: tuple[int, int]) -> bool:
    """Whether two networks give the same logits of a larger image of an odd size, or of another if one refuses that.

    Up to rounding: the same network in another form may compute large images in another order. True if a network takes
    no other sizes than that of the first image.
    """
    if one is other:
        return True
    with torch.no_grad(), without_engines(one), without_engines(other):
        for shape in ((2 * size[0] + 1, 3 * size[1] + 3), (4 * size[0], 4 * size[1])):
            image = noise(shape)
            try:
                return close(one(image), other(image))
            except Exception:  # whatever their code raises
                continue
    return True

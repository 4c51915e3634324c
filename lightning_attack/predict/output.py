"""`AttackOutput`: what `AttackModule.predict_step` returns for a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attack.predict.batches import Skipped


@dataclass
class AttackOutput:
    """The adversarial images of one batch, what the networks predict on them, and what the attack cost.

    B images of H x W pixels that were attacked; images that were left out are in `skipped` only. `len` is B. If all
    were left out, B, H and W are 0. Tensors are on the batch's device; with `Trainer.predict(return_predictions=True)`
    Lightning moves them to the CPU.

    Attributes:
        index: positions in the data set, (B,) int64.
        name: names of the images.
        digest: hashes of the images with all that belongs to them; empty strings where the batch brought none.
        image: clean images, (B, 3, H, W) in [0, 1].
        adversarial: adversarial images, (B, 3, H, W) in [0, 1]; on the 8-bit grid, unless with `quantize=False`.
        labels: (B, H, W) int64, classes 0..C-1, 255 = ignored: the batch's masks, or where it has none the source's
            clean prediction.
        target_labels: wanted classes of a targeted attack, (B, H, W) int64, 255 = none wanted; None if untargeted.
        region: where images were allowed to change, (B, H, W) bool; None: everywhere.
        preds: for each scored network, by name, its predicted classes on the `clean` and on the `adversarial` images,
            each (B, H, W) int64; -1 (`ABSTAINED`) where it abstains. Where the network failed (see `failed`) they are
            zeros and mean nothing.
        curve: confusion matrices after some of the attack's steps, (B, networks, points, C, C) int64, networks in the
            order of `preds`, see `StepCurve`; None without a curve. Where a network may abstain, C + 1 columns.
        failed: for each image the targets that could not be scored on it, by name, with the reason.
        skipped: images that were left out, as (index, name, reason).
        figures: for each attack step figures by name, each (B,), see `lightning_attack.attacks.base.StepLog`.
        passes: `forward` and `backward` passes of the source per image; of an ensemble those of all members.
        seconds: time of the attack on the whole batch.
        scoring: time of all networks' predictions on the whole batch, clean and adversarial, in seconds.
        memory: bytes per image at the attack's peak; None where the system does not tell.
        labels_predicted: whether `labels` are the source's clean prediction, because the batch has no masks.
    """

    index: Tensor
    name: list[str]
    digest: list[str]
    image: Tensor
    adversarial: Tensor
    labels: Tensor
    target_labels: Tensor | None
    region: Tensor | None
    preds: dict[str, dict[str, Tensor]]
    curve: Tensor | None
    failed: list[dict[str, str]]
    skipped: list[Skipped]
    figures: list[dict[str, Tensor]]
    passes: dict[str, float]
    seconds: float
    scoring: float
    memory: float | None
    labels_predicted: bool = False

    def __len__(self) -> int:
        return len(self.name)

    @classmethod
    def empty(cls, networks: Iterable[str], skipped: Sequence[Skipped]) -> AttackOutput:
        """The output of a batch of which all images were left out."""
        images, maps = torch.zeros(0, 3, 0, 0), torch.zeros(0, 0, 0, dtype=torch.int64)
        return cls(
            index=torch.zeros(0, dtype=torch.int64),
            name=[],
            digest=[],
            image=images,
            adversarial=images.clone(),
            labels=maps,
            target_labels=None,
            region=None,
            preds={name: {"clean": maps.clone(), "adversarial": maps.clone()} for name in networks},
            curve=None,
            failed=[],
            skipped=[*skipped],
            figures=[],
            passes={"forward": 0.0, "backward": 0.0},
            seconds=0.0,
            scoring=0.0,
            memory=None,
        )


def merge(parts: Sequence[AttackOutput]) -> AttackOutput:
    """The outputs for the parts of one batch as that of the whole batch.

    What belongs to images is joined, seconds are added, passes averaged over the images, and of the memory the largest
    is kept. A part with fewer attack steps than another has NaN in the figures of the steps that it lacks.
    """
    if len(parts) == 1:
        return parts[0]
    counts = [len(part) for part in parts]
    memory = [part.memory for part in parts if part.memory is not None]
    return AttackOutput(
        index=torch.cat([part.index for part in parts]),
        name=[name for part in parts for name in part.name],
        digest=[digest for part in parts for digest in part.digest],
        image=torch.cat([part.image for part in parts]),
        adversarial=torch.cat([part.adversarial for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        target_labels=_joined([part.target_labels for part in parts]),
        region=_joined([part.region for part in parts]),
        preds={
            name: {condition: torch.cat([part.preds[name][condition] for part in parts]) for condition in both}
            for name, both in parts[0].preds.items()
        },
        curve=_joined([part.curve for part in parts]),
        failed=[failed for part in parts for failed in part.failed],
        skipped=[skipped for part in parts for skipped in part.skipped],
        figures=_figures([part.figures for part in parts], counts),
        passes={
            kind: sum(part.passes[kind] * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
            for kind in parts[0].passes
        },
        seconds=sum(part.seconds for part in parts),
        scoring=sum(part.scoring for part in parts),
        memory=max(memory) if len(memory) == len(parts) else None,
        labels_predicted=any(part.labels_predicted for part in parts),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All parts have it, or none has: they come from one batch of one run."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def _figures(parts: Sequence[Sequence[Mapping[str, Tensor]]], counts: Sequence[int]) -> list[dict[str, Tensor]]:
    """The figures of each step, put together along the batch.

    Example:
        >>> _figures([[{"loss": torch.ones(1)}], []], [1, 1])
        [{'loss': tensor([1., nan])}]
    """
    steps = []
    for step in range(max(map(len, parts))):
        names = dict.fromkeys(name for part in parts if step < len(part) for name in part[step])
        steps.append(
            {
                name: torch.cat(
                    [
                        part[step][name].float().cpu()
                        if step < len(part) and name in part[step]
                        else torch.full((count,), torch.nan)
                        for part, count in zip(parts, counts, strict=True)
                    ]
                )
                for name in names
            }
        )
    return steps

"""From the output of the predict step to the records of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from lightning_attack.common.labels import IGNORE_INDEX
from lightning_attack.metrics import confusion_matrices, perturbation_size
from lightning_attack.metrics.flips import flip_counts
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.output import AttackOutput
from lightning_attack.runs.records import Record, Sparse
from lightning_attack.runs.summary import CONDITIONS


def image_records(module: AttackModule, outputs: AttackOutput, parts: Sequence[str]) -> list[Record]:
    """A record of each image, without `flips`; a copy, because other callbacks may write to the outputs.

    Args:
        module: the module that attacked the images.
        outputs: what its predict step returned.
        parts: the groups of pixels that are counted, see `runs.summary.Scored`.
    """
    size = perturbation_size(outputs.adversarial, outputs.image)
    counts, clean = _counts(module, outputs, parts)
    curves, points = _curves(outputs.figures), _points(module, outputs)
    names = outputs.name
    return [
        Record(
            index=index,
            name=names[row],
            counts=counts[row],
            clean=Sparse.of(clean[row]),
            size={key: float(values[row]) for key, values in size.items()},
            passes={**outputs.passes},
            seconds=outputs.seconds / len(names),
            scoring=outputs.scoring / len(names),
            memory=outputs.memory,
            digest=outputs.digest[row],
            failed={**outputs.failed[row]},
            figures={key: values[:, row] for key, values in curves.items()},
            curve=None if points is None else points[row],
        )
        for row, index in enumerate(outputs.index.tolist())
    ]


def label_maps(module: AttackModule, outputs: AttackOutput) -> tuple[np.ndarray, np.ndarray]:
    """Labels (B, H, W), and predictions (B, 2, targets, H, W), clean and adversarial; int16, which classes fit into."""
    preds = [torch.stack([outputs.preds[name][condition].short() for name in module.target_names], 1)
             for condition in CONDITIONS]  # fmt: skip
    return outputs.labels.short().cpu().numpy(), torch.stack(preds, 1).cpu().numpy()


def with_flips(record: Record, labels: np.ndarray, preds: np.ndarray, targets: Sequence[str]) -> Record:
    """The record with `flips`, from its image's row of `label_maps`; none are counted for targets that have failed."""
    flips = flip_counts(labels, *preds)
    for counts in flips.values():
        counts[[targets.index(name) for name in record.failed]] = 0
    return replace(record, flips=flips)


def _counts(module: AttackModule, outputs: AttackOutput, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hits, labels and predictions, (B, targets, parts, 2, 3, C).

    And confusion matrices of the clean images over all labelled pixels, (B, targets, C, C).
    """
    counts, clean = [], []
    for name, part in product(module.target_names, parts):
        for condition in CONDITIONS:
            preds, labels = outputs.preds[name][condition], _labels(part, outputs)
            matrices = confusion_matrices(preds, labels, module.num_classes, abstains=True)
            counts.append(_of_classes(matrices))
            if (part, condition) == (parts[0], CONDITIONS[0]):
                clean.append(matrices[..., :-1])
    shape = len(module.target_names), len(parts), len(CONDITIONS)
    of_classes = torch.stack(counts, 1).unflatten(1, shape).cpu().numpy()
    whole = torch.stack(clean, 1).cpu().numpy()
    for row, place in _unscored(module, outputs):
        of_classes[row, place] = whole[row, place] = 0
    return of_classes, whole


def _of_classes(matrices: Tensor) -> Tensor:
    """Hits, labels and predictions of each class, (..., 3, C) int64, as `metrics.iou.class_counts`.

    Pixels of a further column, those that a network abstained from, have labels and no predictions.
    """
    predictions = matrices.sum(-2)[..., : matrices.shape[-2]]
    return torch.stack([matrices.diagonal(dim1=-2, dim2=-1), matrices.sum(-1), predictions], -2)


def _labels(part: str, outputs: AttackOutput) -> Tensor:
    """What predictions are counted against, (B, H, W); 255 = not counted."""
    if part == "all":
        return outputs.labels
    if part == "wanted":
        assert outputs.target_labels is not None
        return outputs.target_labels
    assert outputs.region is not None
    return outputs.labels.masked_fill(~outputs.region if part == "inside" else outputs.region, IGNORE_INDEX)


def _points(module: AttackModule, outputs: AttackOutput) -> np.ndarray | None:
    """Hits, labels and predictions along the curve, (B, targets, points, 3, C); None without one."""
    if outputs.curve is None:
        return None
    counts = _of_classes(outputs.curve).cpu().numpy()
    for row, place in _unscored(module, outputs):
        counts[row, place] = 0
    return counts


def _unscored(module: AttackModule, outputs: AttackOutput) -> list[tuple[int, int]]:
    """Images of the batch, and for each the networks (by their place) that could not be scored on it."""
    return [(row, module.target_names.index(name)) for row, failed in enumerate(outputs.failed) for name in failed]


def _curves(figures: Sequence[Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    """The figures by name, (steps, B), NaN where a step has none; one transfer from the device for each name."""
    curves = {}
    for name in dict.fromkeys(name for values in figures for name in values):
        known = next(values[name] for values in figures if name in values).float()
        rows = [values[name].float() if name in values else torch.full_like(known, torch.nan) for values in figures]
        curves[name] = torch.stack(rows).cpu().double().numpy()
    return curves

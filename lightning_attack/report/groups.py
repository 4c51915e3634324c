"""Groups of runs that can be compared in one table: of the same classes, networks, images and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lightning_attack.common.counted import counted
from lightning_attack.common.network_hash import are_comparable
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run, common_images, photo_digest
from lightning_attack.runs.summary import MASKS, PREDICTED


@dataclass(frozen=True)
class Group:
    """Runs that can be compared in one table.

    Attributes:
        runs: in the order of their folders.
        images: the images that the figures are about, as in `Run.images`; all runs have them.
        of: how many images there are in any of the runs.
    """

    runs: tuple[Run, ...]
    images: tuple[str, ...]
    of: int

    @property
    def targets(self) -> tuple[str, ...]:
        """All scored networks, in the order in which the runs name them."""
        return tuple(dict.fromkeys(target for run in self.runs for target in run.targets))


def group_runs(runs: Sequence[Run], common: bool = False) -> tuple[list[Group], list[str]]:
    """Sort runs into groups, and say why there is more than one: once for each kind of reason.

    Args:
        runs: at least one.
        common: put runs of different images into one group, and compare them on the images that all of them have.

    Raises:
        RunsError: with `common`, runs that have no image in common.
    """
    groups: list[list[Run]] = []
    # Of the runs of a group those that a new one is compared with: of several with the same marks, one.
    unlike: list[dict[object, Run]] = []
    notes: dict[str, list[tuple[str, Run]]] = {}
    for run in runs:
        reasons = []
        marks = _marks(run)
        for group, others in zip(groups, unlike, strict=True):
            reason = None
            if marks is None or marks not in others:
                reason = next((found for one in others.values() if (found := _why_apart(one, run, common))), None)
            if not reason:
                group.append(run)
                others.setdefault(run.folder if marks is None else marks, run)
                break
            reasons.append(reason)
        else:
            groups.append([run])
            unlike.append({run.folder if marks is None else marks: run})
            for kind, text in reasons[:1]:
                notes.setdefault(kind, []).append((text, run))
    return [_group(group) for group in groups], [_note(alike) for alike in notes.values()]


def _note(alike: list[tuple[str, Run]]) -> str:
    """Why runs stand apart that do so for one kind of reason: the first in full, the others by their folders."""
    (text, _), *others = alike
    if not others:
        return text
    names = ", ".join(f"'{run.folder}'" for _, run in others[:3])
    return f"{text}; likewise {names}" + (f" and {len(others) - 3} more" if len(others) > 3 else "")


def _group(runs: list[Run]) -> Group:
    images = common_images(runs, runs[0].images)
    if not images:
        other = next((run for run in runs if not common_images([runs[0], run], run.images)), None)
        names = f"'{runs[0].folder}' and '{other.folder}'" if other else ", ".join(f"'{run.folder}'" for run in runs)
        raise RunsError(f"{names} have no image in common\nleave one out, or report without --common: in two tables")
    return Group(tuple(runs), images, len({key for run in runs for key in run.images}))


def _why_apart(run: Run, other: Run, common: bool) -> tuple[str, str] | None:
    """Why two runs cannot stand in one table, as a kind of reason and a sentence; None if they can."""
    names = f"'{run.folder}' and '{other.folder}' are in tables of their own:"
    if run.classes != other.classes:
        differing = sorted(set(run.classes) ^ set(other.classes))
        what = f"such as {differing[0]}" if differing else "in another order"
        return "classes", f"{names} their classes differ ({len(run.classes)} and {len(other.classes)}, {what})"
    same_labels = _labels(run) == _labels(other)
    if same_labels and (count := _other_photos(run, other)):
        why = f"of {counted(count, 'image')} with the same name in both, the labels or clean predictions differ"
        return "other images", f"{names} {why}"
    for target in run.targets:
        if target in other.targets and not _same_network(run, other, target):
            why = f"'{target}' is not the same network in both (weights, code, windows or precision differ)"
            return "network", f"{names} {why}"
    if not same_labels:
        said = " and ".join(
            f"{what} of {source}" if source else what for what, source in (_labels(run), _labels(other))
        )
        return "labels", f"{names} their labels differ ({said})"
    if run.images.keys() != other.images.keys() and not common:
        shared = len(run.images.keys() & other.images.keys())
        counts = f"{len(run.images)} and {len(other.images)} images"
        if not shared:
            return "other images", f"{names} of their {counts} none is the same"
        return "images", f"{names} of their {counts} {shared} are the same (--common compares them on these)"
    return None


def _labels(run: Run) -> tuple[str, str]:
    """What labels the photos have, and of which source if it has predicted them: those of another one are others."""
    labels = str(run.summary.get("labels", MASKS))
    return (labels, "") if labels == MASKS else (PREDICTED.removesuffix(" of the source"), run.source)


def _same_network(run: Run, other: Run, target: str) -> bool:
    """Whether a name stands for the same network, by the hash of its weights and by how it is shown the photos.

    The clean predictions decide where that is not enough: a run kept no hashes, or no digests of its photos, the user's
    code of networks differs, or hashes of an earlier version do, which depended on what networks were called.
    """
    mine, theirs = _mark(run, target), _mark(other, target)
    if mine is not None and theirs is not None:
        if mine == theirs and run.has_digests and other.has_digests:
            return True
        if mine.shown != theirs.shown or (mine.hash != theirs.hash and are_comparable(mine.hash, theirs.hash)):
            return False
    images = common_images([run, other], run.scored(target) & other.scored(target))
    return np.array_equal(run.counts(target, images)[:, 0], other.counts(target, images)[:, 0])


def _other_photos(run: Run, other: Run) -> int:
    """How many images have the same name in two runs that kept no digests of them, and yet are not the same photos.

    That is, their labels differ, or the clean predictions of a network that has the same hash in both.
    """
    if run.has_digests or other.has_digests:
        return 0
    # Labels that networks have predicted say nothing of the photos where the networks may be others.
    telling = _labels(run)[0] == MASKS or _same_hash(run, other, run.source)
    shared = [(target, target) for target in run.targets if target in other.targets]
    differ: set[str] = set()
    for mine, theirs in shared or [(next(iter(run.targets)), next(iter(other.targets)))]:
        images = common_images([run, other], run.scored(mine) & other.scored(theirs))
        named = [key for key in images if not photo_digest(run.records[run.images[key]])]
        unlike = run.counts(mine, named)[:, 0] != other.counts(theirs, named)[:, 0]
        if mine != theirs or not _same_hash(run, other, mine):
            unlike = unlike[:, 1:2] if telling else unlike[:, :0]  # the labels, or nothing
        differ.update(key for key, found in zip(named, unlike.any((1, 2)), strict=True) if found)
    return len(differ)


def _same_hash(run: Run, other: Run, target: str) -> bool:
    mark = _mark(run, target)
    return mark is not None and mark == _mark(other, target)


def _marks(run: Run) -> tuple[object, ...] | None:
    """Classes, images, labels and networks: runs with the same go together. None where a hash or digest is missing."""
    networks = {target: _mark(run, target) for target in run.targets}
    if None in networks.values() or not run.has_digests:
        return None
    return run.classes, frozenset(run.images), _labels(run), repr(sorted(networks.items()))


class _Mark(NamedTuple):
    """What a run kept of a network.

    Attributes:
        hash: of weights and structure.
        shown: how it is shown the photos: windows and precision.
        code: hashes of the user's code of all networks of the run; in runs that did not tell it apart, of attacks too.
    """

    hash: str
    shown: tuple[str, str]
    code: str


def _mark(run: Run, target: str) -> _Mark | None:
    try:
        model = run.settings["model"]
        code = model.get("code", {})
        shown = str(model["windows"]), str(run.settings["trainer"]["precision"])
        return _Mark(model["targets"][target], shown, str(code.get("networks", code)))
    except (AttributeError, KeyError, TypeError):
        return None

"""`Sheet`: all figures of a table, before anything is printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_attack.comparison.groups import Group
from lightning_attack.comparison.labels import budget, labels
from lightning_attack.comparison.runs import Run, RunsError, common_images
from lightning_attack.comparison.statistics import (
    DRAWS,
    FEWEST,
    Interval,
    difference_interval,
    miou,
    miou_interval,
    paired_difference,
)

PLAIN = ("pgd", "bim", "mi_fgsm", "fgsm")
"""What attacks are compared with if nothing else is said: the first that a section has."""
FEW = 20
"""Intervals over fewer images than these are said to be rough."""


@dataclass(frozen=True)
class Cell:
    """A network under an attack.

    Attributes:
        target: the network.
        white_box: whether it was attacked itself.
        clean: its mIoU on the clean images.
        adversarial: on the adversarial ones.
        drop: clean less adversarial.
        difference: adversarial mIoU less that of the baseline, over the same images; None where there is nothing to
            compare with.
        best: whether the attack is really the strongest on this target, see `compute`.
    """

    target: str
    white_box: bool
    clean: Interval
    adversarial: Interval
    drop: Interval
    difference: Interval | None
    best: bool


@dataclass(frozen=True)
class Row:
    """A run.

    Attributes:
        run: the run.
        label: its name, which no other row of its source has.
        cells: for each network that it scored.
        against: label of the run that `Cell.difference` is to; None for a baseline.
    """

    run: Run
    label: str
    cells: dict[str, Cell]
    against: str | None


@dataclass(frozen=True)
class Section:
    """Rows that compete: of one source and one budget, such as `L-inf 8/255`."""

    source: str
    budget: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Source and budget."""
        return f"{self.source}, {self.budget}"


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        sections: by source and budget.
        targets: names of the columns.
        clean: mIoU of each column's network on the clean images.
        images: how many images the figures are about.
        notes: what must be known to read it.
    """

    sections: tuple[Section, ...]
    targets: tuple[str, ...]
    clean: dict[str, float]
    images: int
    notes: tuple[str, ...]


def compute(group: Group, baseline: str | None = None, draws: int = DRAWS) -> Sheet:
    """All figures of a group of runs.

    In a section, the attack with the lowest adversarial mIoU on a target is the `best` one if the interval of its
    paired difference to the second best leaves out 0. White boxes do not take part.

    Args:
        group: runs that go together.
        baseline: name of an attack, a folder or a label; None = see `PLAIN`, or else the first of a section.
        draws: of the bootstrap.
    """
    named: dict[int, str] = {}
    places: dict[tuple[str, str], list[Run]] = {}
    for source in dict.fromkeys(run.source for run in group.runs):
        own = [run for run in group.runs if run.source == source]
        named |= {id(run): label for run, label in zip(own, labels(own), strict=True)}
        for run in own:
            places.setdefault((source, budget(run)), []).append(run)
    sections, notes = [], []
    for place, runs in places.items():
        bases = [run for run in runs if baseline and is_named(run, named[id(run)], baseline)]
        if not baseline:
            plain = next((name for name in PLAIN if any(run.attack == name for run in runs)), runs[0].attack)
            bases = [run for run in runs if run.attack == plain]
        if not bases:
            notes.append(f"Nothing is compared on {', '.join(place)}: there is no {baseline} of this budget.")
        best = {target: _best(runs, target, group, draws) for target in group.targets}
        rows = []
        for run in runs:
            against = _against(run, bases)
            cells = {target: _cell(run, target, group, against, run is best[target], draws) for target in run.targets}
            rows.append(Row(run, named[id(run)], cells, named[id(against)] if against else None))
        sections.append(Section(*place, tuple(rows)))
    clean: dict[str, float] = {}
    for row in (row for section in sections for row in section.rows):
        clean = {target: cell.clean.value for target, cell in row.cells.items()} | clean
    return Sheet(tuple(sections), group.targets, clean, len(group.images), (*_notes(group, sections), *notes))


def check_baseline(runs: Sequence[Run], baseline: str) -> None:
    """Raise `RunsError` if no run goes by a name."""
    if not any(is_named(run, label, baseline) for run, label in zip(runs, labels(runs), strict=True)):
        known = ", ".join(dict.fromkeys(run.attack for run in runs))
        raise RunsError(f"--baseline={baseline}: no run has this attack or this folder\nknown: {known}")


def is_named(run: Run, label: str, name: str) -> bool:
    """Whether a name means a run: that of its attack, its folder or its label."""
    return name in (run.attack, run.folder.name, str(run.folder), label)


def _against(run: Run, bases: Sequence[Run]) -> Run | None:
    """The baseline of a run: one of the same seed if there is one; a baseline has none."""
    if any(run is base for base in bases):
        return None
    seed = run.report["settings"]["seed"]
    return next((base for base in bases if base.report["settings"]["seed"] == seed), next(iter(bases), None))


def _best(runs: Sequence[Run], target: str, group: Group, draws: int) -> Run | None:
    """The attack that is really the strongest on a target; None if none is."""
    rivals = [run for run in runs if run.targets.get(target) is False and _images(run, target, group)]
    order = sorted(rivals, key=lambda run: miou(run.confusions(target, _images(run, target, group))[:, 1]))
    if len(order) < 2:
        return None
    difference = _difference(order[0], order[1], target, group, draws)
    return order[0] if difference and difference.real else None


def _difference(run: Run, other: Run, target: str, group: Group, draws: int) -> Interval | None:
    if target not in other.targets or not run.scored(target) & other.scored(target) & {*group.images}:
        return None
    return paired_difference(run, other, target, draws, group.images)


def _images(run: Run, target: str, group: Group) -> tuple[str, ...]:
    """The group's images on which a run scored a target."""
    return common_images(group.runs, run.scored(target).intersection(group.images))


def _cell(run: Run, target: str, group: Group, against: Run | None, best: bool, draws: int) -> Cell:
    counts = run.confusions(target, _images(run, target, group))
    clean, adversarial = counts[:, 0], counts[:, 1]
    return Cell(
        target=target,
        white_box=run.targets[target],
        clean=miou_interval(clean, draws),
        adversarial=miou_interval(adversarial, draws),
        drop=difference_interval(clean, adversarial, draws),
        difference=_difference(run, against, target, group, draws) if against else None,
        best=best,
    )


def _notes(group: Group, sections: Sequence[Section]) -> Iterator[str]:
    if len(group.images) < group.of:
        yield f"All figures are about the {len(group.images)} of {group.of} images that the runs have in common."
    if len(group.images) < FEW:
        rough = "the intervals are rough" if len(group.images) >= FEWEST else f"intervals take {FEWEST} or more"
        yield f"{len(group.images)} images are few: {rough}."
    for row in (row for section in sections for row in section.rows):
        if row.run.partial:
            missing = row.run.report.get("missing", "?")
            yield f"{row.label} on {row.run.source} is partial: {missing} images are missing."
        for cell in row.cells.values():
            if cell.adversarial.images < len(group.images):
                failed = len(group.images) - cell.adversarial.images
                yield f"{row.label} on {row.run.source}: {cell.target} could not be scored on {failed} images."

"""`Sheet`: all figures of a table as numbers, from which the text formats are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean, stdev

from lightning_attack.common.counted import counted
from lightning_attack.metrics.iou import miou
from lightning_attack.report.groups import Group
from lightning_attack.report.intervals import (
    DRAWS,
    FEWEST,
    Interval,
    mean_difference,
    mean_interval,
    paired_difference,
)
from lightning_attack.report.row_names import Called, budget, own_name, row_names, siblings
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run
from lightning_attack.runs.summary_files import missing_words

PLAIN = ("pgd", "bim", "mi_fgsm", "fgsm")
"""What attacks are compared with if nothing else is said: the first that a section has."""
FEW = 20
"""Intervals over fewer images than these are said to be rough."""


@dataclass(frozen=True)
class Entry:
    """A run, or with `mean` its repetitions with other seeds, whose mean mIoU counts; and its name in the tables."""

    runs: tuple[Run, ...]
    label: str

    @property
    def first(self) -> Run:
        """The run, or the first of them."""
        return self.runs[0]

    def images(self, target: str, group: Group) -> tuple[str, ...]:
        """The group's images on which all these runs could score a target; empty if a run lacks the target."""
        if any(target not in run.targets for run in self.runs):
            return ()
        failed = frozenset().union(*(run.failures.get(target, frozenset()) for run in self.runs))
        return tuple(key for key in group.images if key not in failed) if failed else group.images


@dataclass(frozen=True)
class Score:
    """The figures of a network under an attack.

    Attributes:
        target: the network.
        white_box: whether it was attacked itself.
        clean: its mIoU on the clean images.
        adversarial: on the adversarial ones.
        drop: clean less adversarial.
        spread: standard deviation of the adversarial mIoU over seeds; None for a single run.
        difference: adversarial mIoU less that of the baseline, over the same images; None where there is nothing to
            compare with.
        best: whether the attack is significantly the strongest on this target, see `compute`.
    """

    target: str
    white_box: bool
    clean: Interval
    adversarial: Interval
    drop: Interval
    spread: float | None
    difference: Interval | None
    best: bool


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        entry: what it is about.
        cells: for each network that was scored.
        against: label of what `Score.difference` is to; None for a baseline.
    """

    entry: Entry
    cells: dict[str, Score]
    against: str | None

    @property
    def label(self) -> str:
        """Its name, which no other row of its source has."""
        return self.entry.label


@dataclass(frozen=True)
class Section:
    """Rows that are compared with each other: of the same source and budget, such as `L-inf 8/255`."""

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


def compute(
    group: Group,
    baseline: str | None = None,
    draws: int = DRAWS,
    mean: bool = False,
    on_row: Callable[[], object] = lambda: None,
) -> Sheet:
    """All figures of a group of runs.

    In a section, the attack with the lowest adversarial mIoU on a target is the `best` one if the interval of its
    paired difference to the second best excludes 0. White boxes do not take part.

    Args:
        group: runs that go together.
        baseline: name of an attack, a folder or a label; None = see `PLAIN`, or else the first of a section.
        draws: of the bootstrap.
        mean: make one row of runs that differ in nothing but their seed.
        on_row: called after each row.
    """
    sections, notes = [], []
    for place, entries in _entries(group, mean).items():
        bases = [entry for entry in entries if baseline and _is_named(entry, baseline)]
        if not baseline:
            attacks = [entry.first.attack for entry in entries]
            plain = next((name for name in PLAIN if name in attacks), attacks[0])
            bases = [entry for entry in entries if entry.first.attack == plain]
        if not bases:
            notes.append(f"Nothing is compared on {', '.join(place)}: there is no {baseline} of this budget.")
        elif len(bases) == len(entries) > 1:
            names = " and ".join(entry.label for entry in bases[:2])
            notes.append(
                f"Nothing is compared on {', '.join(place)}: all are baselines, such as {names}; give --baseline NAME "
                "to compare them with one."
            )
        mious = {
            (id(entry), target): fmean(_mious(entry, target, group))
            for entry in entries
            for target in group.targets
            if entry.images(target, group)
        }
        best = {target: _best(entries, target, group, draws, mious) for target in group.targets}
        rows = []
        for entry in entries:
            against = _against(entry, bases)
            cells = {
                target: _cell(entry, target, group, against, entry is best[target], draws)
                for target in group.targets
                if entry.images(target, group)
            }
            rows.append(Row(entry, cells, against.label if against else None))
            on_row()
        sections.append(Section(*place, tuple(rows)))
    clean: dict[str, float] = {}
    for row in (row for section in sections for row in section.rows):
        clean = {target: cell.clean.value for target, cell in row.cells.items()} | clean
    targets = tuple(target for target in group.targets if target in clean)
    return Sheet(tuple(sections), targets, clean, len(group.images), (*_notes(group, sections), *notes))


def check_baseline(groups: Sequence[Group], baseline: str, mean: bool = False) -> None:
    """Raise `RunsError` if no row of the tables goes by a name."""
    entries = [entry for group in groups for place in _entries(group, mean).values() for entry in place]
    if not any(_is_named(entry, baseline) for entry in entries):
        known = ", ".join(dict.fromkeys([*(entry.first.attack for entry in entries), *(one.label for one in entries)]))
        raise RunsError(f"--baseline={baseline}: no run has this attack, label or folder\nknown: {known}")


def _entries(group: Group, mean: bool) -> dict[tuple[str, str], list[Entry]]:
    """What competes, by source and budget."""
    places: dict[tuple[str, str], list[Entry]] = {}
    for source in dict.fromkeys(run.source for run in group.runs):
        own = [run for run in group.runs if run.source == source]
        for entry in named_entries(siblings(own) if mean else [(run,) for run in own], mean):
            places.setdefault((source, budget(entry.first)), []).append(entry)
    return places


def named_entries(families: Sequence[tuple[Run, ...]], mean: bool, called: Called = own_name) -> list[Entry]:
    """Runs, each or, with `mean`, those that differ in nothing but their seed as one, under names that tell them apart.

    Args:
        families: the runs of each.
        mean: whether seeds have no place in names.
        called: what the attacks are called.
    """
    names = row_names([family[0] for family in families], ["seed"] if mean else [], called)
    return [
        Entry(family, name if len(family) == 1 else f"{name} (mean of {len(family)} seeds)")
        for family, name in zip(families, names, strict=True)
    ]


def _is_named(entry: Entry, name: str) -> bool:
    """Whether a name means this: that of its attack, of a folder or of its row."""
    folders = {part for run in entry.runs for part in (run.folder.name, str(run.folder))}
    return name in {entry.first.attack, entry.label, *folders}


def _against(entry: Entry, bases: Sequence[Entry]) -> Entry | None:
    """The baseline of a run, of the same seed if possible; None for a baseline itself."""
    if any(entry is base for base in bases):
        return None
    seed = entry.first.summary["settings"]["seed"]
    alike = (base for base in bases if base.first.summary["settings"]["seed"] == seed)
    return next(alike, next(iter(bases), None))


def _best(
    entries: Sequence[Entry], target: str, group: Group, draws: int, mious: Mapping[tuple[int, str], float]
) -> Entry | None:
    """The attack that is significantly the strongest on a target, by the mean mIoUs of entries; None: there is none."""
    rivals = [entry for entry in entries if (id(entry), target) in mious and not entry.first.targets[target]]
    order = sorted(rivals, key=lambda entry: mious[id(entry), target])
    if len(order) < 2:
        return None
    difference = _difference(order[0], order[1], target, group, draws)
    return order[0] if difference and difference.significant else None


def _mious(entry: Entry, target: str, group: Group) -> list[float]:
    """The adversarial mIoU in each of the runs."""
    images = entry.images(target, group)
    return [float(miou(run.counts(target, images)[:, 1].sum(0, "float64"))) for run in entry.runs]


def _difference(entry: Entry, other: Entry, target: str, group: Group, draws: int) -> Interval | None:
    common = {*entry.images(target, group)} & {*other.images(target, group)}
    difference = paired_difference(entry.runs, other.runs, target, draws, common) if common else None
    return None if difference is None or isnan(difference.value) else difference  # images without any label


def _cell(entry: Entry, target: str, group: Group, against: Entry | None, best: bool, draws: int) -> Score:
    counts = [run.counts(target, entry.images(target, group)) for run in entry.runs]
    clean, adversarial = [one[:, 0] for one in counts], [one[:, 1] for one in counts]
    several = len(entry.runs) > 1
    return Score(
        target=target,
        white_box=entry.first.targets[target],
        clean=mean_interval(clean, draws),
        adversarial=mean_interval(adversarial, draws),
        drop=mean_difference(clean, adversarial, draws),
        spread=stdev(_mious(entry, target, group)) if several else None,
        difference=_difference(entry, against, target, group, draws) if against else None,
        best=best,
    )


def _notes(group: Group, sections: Sequence[Section]) -> Iterator[str]:
    if len(group.images) < group.of:
        yield f"All figures are about the {len(group.images)} of {group.of} images that the runs have in common."
    if len(group.images) < FEW:
        rough = "the intervals are rough" if len(group.images) >= FEWEST else f"intervals take {FEWEST} or more"
        yield f"Only {counted(len(group.images), 'image')}: {rough}."
    for row in (row for section in sections for row in section.rows):
        place = f"{row.label} on {row.entry.first.source}"
        for run in row.entry.runs:
            if run.partial:
                yield f"{place} is partial: {missing_words(run.summary)}."
        for cell in row.cells.values():
            if cell.adversarial.images < len(group.images):
                failed = len(group.images) - cell.adversarial.images
                yield f"{place}: {cell.target} could not be scored on {counted(failed, 'image')}."

"""What figures show of runs: their names, mIoU with intervals, and lines through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean as mean_of

from lightning_attack.report.facts import backward_passes, radius
from lightning_attack.report.groups import Group
from lightning_attack.report.intervals import Interval, mean_interval
from lightning_attack.report.row_names import (
    Called,
    but_for_seed,
    line_names,
    norm_balls,
    own_name,
    short_number,
    siblings,
    user_code_of,
)
from lightning_attack.report.sheet import Entry, named_entries
from lightning_attack.report.strengths import families
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run


@dataclass(frozen=True)
class Point:
    """A point of a line: mIoU as shares in [0, 1]."""

    x: float
    miou: Interval


@dataclass
class Facet:
    """A panel of a figure of curves: a target attacked from a source.

    Attributes:
        source: the attacked network.
        target: the scored one.
        white_box: whether it was attacked itself.
        clean: its mIoU on the clean images.
        lines: by label.
        clean_line: where each point has other clean images' mIoU, these.
        undefended: by label, the mIoU of the same network without the defence of the target.
        behind: what else the target is behind than the defence whose strength is shown.
    """

    source: str
    target: str
    white_box: bool
    clean: Interval
    lines: dict[str, list[Point]] = field(default_factory=dict)
    clean_line: list[Point] = field(default_factory=list)
    undefended: dict[str, Interval] = field(default_factory=dict)
    behind: str = ""


@dataclass(frozen=True)
class Axis:
    """What the horizontal axis of curves shows.

    Attributes:
        title: with its unit.
        from_clean: whether the clean images are its point 0.
        notes: on runs that have no place on it.
        from_zero: whether it begins at 0 and has whole numbers.
    """

    title: str
    from_clean: bool
    notes: tuple[str, ...] = ()
    from_zero: bool = True


def entries(group: Group, mean: bool, called: Called = own_name) -> list[Entry]:
    """The runs, with `mean` those that differ in nothing but their seed as one, with their names in reports."""
    # At once, so that an attack has one name on all sources.
    return named_entries(_of_sources(group.runs, mean), mean, called)


def adversarial(entry: Entry, target: str, group: Group, draws: int) -> Interval:
    """The mIoU of a target on the adversarial images; of several seeds the mean."""
    images = entry.images(target, group)
    return mean_interval([run.counts(target, images)[:, 1] for run in entry.runs], draws)


def clean(entry: Entry, target: str, group: Group, draws: int) -> Interval:
    """The mIoU of a target on the clean images."""
    return mean_interval([entry.first.counts(target, entry.images(target, group))[:, 0]], draws)


def over_steps(
    group: Group, targets: Sequence[str], mean: bool, draws: int, called: Called = own_name
) -> tuple[Axis, list[Facet]]:
    """The mIoU after some of the steps of each run.

    Raises:
        RunsError: a run kept no such curve.
    """
    without = [f"'{run.folder}'" for run in group.runs if "step_curve" not in run.summary]
    if without:
        few = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
        raise RunsError(f"no mIoU over the steps in {few}\npredict --curve=steps keeps it; leave out other runs")

    def points(entry: Entry, target: str) -> list[Point]:
        curves = [run.summary["step_curve"]["steps"] for run in entry.runs]
        images = entry.images(target, group)
        found = []
        for place, step in enumerate(curves[0]):
            samples = [run.curve(target, images)[:, place] for run in entry.runs]
            found.append(Point(step, mean_interval(samples, draws)))
        return found

    found = entries(group, mean, called)
    for entry in found:
        if len({tuple(run.summary["step_curve"]["steps"]) for run in entry.runs}) > 1:
            raise RunsError(f"the seeds of {entry.label} kept the mIoU after different steps; leave out --mean")
    return Axis("steps", False), _facets(group, targets, found, points, draws)


def over_eps(
    group: Group, targets: Sequence[str], mean: bool, draws: int, called: Called = own_name
) -> tuple[Axis, list[Facet]]:
    """The mIoU over the radius, through runs that differ in it (and the size of steps) only.

    Raises:
        RunsError: all have one radius, or some have one in another norm, several or none.
    """
    bounded = [run for run in group.runs if norm_balls(run)]
    odd = next((run for run in bounded if radius(run) is None), None)
    if odd:
        raise RunsError(f"'{odd.folder}' has more than one radius and no place on the axis; leave it out")
    radii = {run.folder: found for run in bounded if (found := radius(run))}
    if len(norms := sorted({norm for norm, _ in radii.values()})) > 1:
        raise RunsError(f"the runs have radii in several norms ({', '.join(norms)})\ngive the runs of one")
    levels = norms == ["Linf"]
    values = {folder: 255 * eps if levels else eps for folder, (_, eps) in radii.items()}
    shown = {short_number(eps, levels) for _, eps in radii.values()}
    title = "ε (L∞, in 1/255)" if levels else "ε (Euclidean length, L2)"
    axis = Axis(title, True, _left_out(group, values, "radius"))
    return axis, _through(
        group, targets, values, shown, ("eps", "predict --model.attack.eps=4/255"), mean, draws, called
    )


def over_passes(
    group: Group, targets: Sequence[str], mean: bool, draws: int, called: Called = own_name
) -> tuple[Axis, list[Facet]]:
    """The mIoU over the backward passes of the source for each image, through runs that differ in their steps only.

    Raises:
        RunsError: all have as many passes.
    """
    values = {run.folder: passes for run in group.runs if (passes := backward_passes(run))}
    shown = {f"{passes:g} passes" for passes in values.values()}
    axis = Axis("backward passes per image", False, _left_out(group, values, "backward passes"))
    return axis, _through(
        group, targets, values, shown, ("steps", "predict --model.attack.steps=40"), mean, draws, called
    )


def over_strength(
    group: Group, targets: Sequence[str], mean: bool, draws: int, called: Called = own_name
) -> tuple[Axis, list[Facet]]:
    """The mIoU over a setting of a defence, through targets that are one network behind it; clean images too.

    Where that network is itself a target, also one that was not chosen, it is shown without the defence.

    Raises:
        RunsError: there are no such targets, or they differ in several settings.
    """
    rows = {row["target"]: row for run in group.runs for row in run.summary["targets"]}
    found = families([rows[target] for target in targets if target in rows])
    if not found:
        raise RunsError(
            "no two of the targets are one network behind one defence of different strengths, such as JPEG of quality "
            "50 and 75\na run notes what its targets are behind; runs of older versions did not"
        )
    if len(settings := dict.fromkeys(family.setting for family in found)) > 1:
        raise RunsError(
            f"the targets differ in several settings: {', '.join(settings)}\n"
            "--targets chooses those of one, such as "
            f"--targets {' '.join(found[0].targets.values())}"
        )
    facets: dict[tuple[str, int], Facet] = {}
    for entry in entries(group, mean, called):
        for number, family in enumerate(found):
            places = {x: name for x, name in family.targets.items() if entry.images(name, group)}
            if not places:
                continue
            key = entry.first.source, number
            known = {point.x: point for point in facets[key].clean_line} if key in facets else {}
            known |= {x: Point(x, clean(entry, name, group, draws)) for x, name in places.items() if x not in known}
            cleans = [known[x] for x in sorted(known)]
            facet = facets.setdefault(key, Facet(key[0], family.network, False, cleans[0].miou, behind=family.others))
            facet.clean_line = cleans
            facet.white_box |= any(entry.first.targets[name] for name in places.values())
            facet.lines[entry.label] = [Point(x, adversarial(entry, name, group, draws)) for x, name in places.items()]
            bare = family.network
            if bare in rows and not rows[bare].get("defence") and entry.images(bare, group):
                facet.undefended[entry.label] = adversarial(entry, bare, group, draws)
    return Axis(next(iter(settings)), False, from_zero=False), [*facets.values()]


def _through(
    group: Group,
    targets: Sequence[str],
    values: Mapping[Path, float],
    shown: set[str],
    setting: tuple[str, str],
    mean: bool,
    draws: int,
    called: Called,
) -> list[Facet]:
    """Lines through the runs that differ in a setting (and the size of steps that goes with it) only."""
    if len(shown) < 2:
        has = f"all have {shown.pop()}" if shown else "none has any"
        raise RunsError(f"a curve takes runs of two or more values: {has}\n`{setting[1]}` makes a run with another")
    runs = [run for run in group.runs if run.folder in values]
    without = (setting[0], "step_size", *["seed"] * mean)
    names = line_names(runs, without, called)
    name_of = {run.folder: name for run, name in zip(runs, names, strict=True)}

    def place(alike: Sequence[Run]) -> float:
        return float(mean_of([values[run.folder] for run in alike]))  # exact: of equal values it is theirs

    lines: dict[str, dict[str, list[tuple[Run, ...]]]] = {name: {} for name in names}
    for alike in _of_sources(runs, mean):
        line = lines[name_of[alike[0].folder]].setdefault(alike[0].source, [])
        for other in line:
            if place(alike) == place(other) or (mean and but_for_seed(alike[0]) == but_for_seed(other[0])):
                raise RunsError(_same_point(other[0], alike[0], name_of[alike[0].folder]))
        line.append(alike)
    chosen = []
    for name, of_sources in lines.items():
        found = sorted((alike for line in of_sources.values() for alike in line), key=place)
        counts = sorted({len(alike) for alike in found})
        several = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        label = name if counts == [1] else f"{name} (mean of {several} seeds)"
        chosen += [Entry(alike, label) for alike in found]

    def points(entry: Entry, target: str) -> list[Point]:
        return [Point(place(entry.runs), adversarial(entry, target, group, draws))]

    return _facets(group, targets, chosen, points, draws)


def _same_point(run: Run, other: Run, name: str) -> str:
    said = f"'{run.folder}' and '{other.folder}' are the same point of the line '{name}'"
    if user_code_of(run) != user_code_of(other):
        return f"{said}, but code of your own was changed between them\nleave one out, or make both with one code"
    return f"{said}\nleave one out, or give --mean for seeds"


def _left_out(group: Group, values: Mapping[Path, float], what: str) -> tuple[str, ...]:
    return tuple(f"'{run.folder}' has no {what} and is left out" for run in group.runs if run.folder not in values)


def _facets(
    group: Group,
    targets: Sequence[str],
    chosen: Sequence[Entry],
    points: Callable[[Entry, str], list[Point]],
    draws: int,
) -> list[Facet]:
    """A facet for each source and target; targets that are no white box come first."""
    facets: dict[tuple[str, str], Facet] = {}
    for entry in chosen:
        for target in targets:
            if not entry.images(target, group):
                continue
            place = entry.first.source, target
            if place not in facets:
                facets[place] = Facet(*place, entry.first.targets[target], clean(entry, target, group, draws))
            facets[place].lines.setdefault(entry.label, []).extend(points(entry, target))
    return sorted(facets.values(), key=lambda facet: facet.white_box)


def _of_sources(runs: Sequence[Run], mean: bool) -> list[tuple[Run, ...]]:
    """The runs by source, each alone, or with `mean` those that differ in nothing but their seed together."""
    found: list[tuple[Run, ...]] = []
    for source in dict.fromkeys(run.source for run in runs):
        own = [run for run in runs if run.source == source]
        found += siblings(own) if mean else [(run,) for run in own]
    return found

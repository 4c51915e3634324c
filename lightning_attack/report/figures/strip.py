"""A strip of pictures: what was attacked, and what networks predict on it, with captions and the classes' colors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lightning_attack.common.labels import class_colour, names_of_numbers
from lightning_attack.report.figures.style import GREY, add_legend, breaks_well, fitted, height_of, width_of
from lightning_attack.report.row_names import Called, own_name, row_names
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run, photo_digest
from lightning_attack.runs.names import panel_files
from lightning_attack.runs.panels import (
    ADVERSARIAL,
    CLEAN,
    DIFFERENCE,
    LABELS,
    Panel,
    Strip,
    StripError,
    cut,
    read_strip,
)
from lightning_attack.runs.summary import MASKS

WORDS = (CLEAN, ADVERSARIAL, DIFFERENCE, LABELS)
IMAGES = 3
"""Images that are shown unless somebody names some."""
NARROWEST, GAP = 0.6, 0.03
"""Inches: the width below which panels go on in the next line, and what is between two."""


@dataclass(frozen=True)
class Line:
    """The panels of one image of a run.

    Attributes:
        label: of the run; empty where there is only one.
        panels: from left to right, (H, W, 3) uint8.
    """

    label: str
    panels: dict[Panel, np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """All that a strip shows.

    Attributes:
        lines: for each image one of each run.
        captions: of photos and labels, by what they show.
        legend: number and name of each class that occurs.
        images: names of the images.
    """

    lines: tuple[Line, ...]
    captions: dict[str, str]
    legend: list[tuple[int, str]]
    images: tuple[str, ...]


def pictures(
    runs: Sequence[Run], images: Sequence[str] | None, words: Sequence[str] | None, called: Called = own_name
) -> Pictures:
    """The panels of some images in some runs.

    Args:
        runs: of the same networks and classes.
        images: their names, with or without folders; None = the first `IMAGES` that all runs have pictures of.
        words: which panels: of `WORDS`, and names of networks; None = all.
        called: what the attacks are called.

    Raises:
        RunsError: there is no such picture, or the runs have other panels or photos.
    """
    first = runs[0]
    for run in runs:
        if (list(run.targets.items()), run.classes) != (list(first.targets.items()), first.classes):
            raise RunsError(
                f"'{first.folder}' and '{run.folder}' have other sources, targets or classes\n"
                "a strip takes runs of one source with the same targets"
            )
    strips = [_strips(run) for run in runs]
    known = [name for name in strips[0] if all(name in one for one in strips)]
    if not known:
        raise RunsError("the runs have no image in common of which all keep pictures\ngive runs of the same images")
    chosen = known[:IMAGES] if images is None else [_known(name, known) for name in images]
    for name in chosen:
        _check_same_photo(name, runs)
    order = _chosen(first, words)
    labels = row_names(runs, called=called) if len(runs) > 1 else [""]
    lines, seen, magnified = [], set(), set()
    for name in chosen:
        for run, label, kept in zip(runs, labels, strips, strict=True):
            try:
                panels = cut(kept[name].pixels, run.targets)
            except StripError as error:
                raise RunsError(f"the picture of '{name}' in '{run.folder}' is {error}; delete it") from error
            lines.append(Line(label, {panel: panels[panel] for panel in order}))
            magnified.add(kept[name].magnify)
            for panel in order:
                if panel.has_classes:
                    seen |= {tuple(colour) for colour in np.unique(panels[panel].reshape(-1, 3), axis=0).tolist()}
    factor = magnified.pop() if len(magnified) == 1 else None
    captions = {
        CLEAN: "clean image",
        ADVERSARIAL: "adversarial image",
        DIFFERENCE: f"{DIFFERENCE} (magnified)" if factor is None else f"{DIFFERENCE} ×\u00a0{factor:g}",
        LABELS: "ground truth" if first.summary.get("labels", MASKS) == MASKS else "labels: clean prediction",
    }
    names = names_of_numbers(first.classes)
    legend = [(number, name) for number, name in names.items() if class_colour(number) in seen]
    return Pictures(tuple(lines), captions, legend, tuple(chosen))


def draw_strip(shown: Pictures, width: float, size: float, columns: int | None, named: Callable[[str], str]) -> Figure:
    """A figure of panels; the arguments as for `curves.draw_curves`, `columns` are panels in a line."""
    order = list(shown.lines[0].panels)
    line = 1.2 * size / 72
    labels = any(one.label for one in shown.lines)
    if columns is None:
        columns = max(1, int(width / max(NARROWEST, GAP + width_of(ADVERSARIAL, size))))
        columns -= columns % 2 if columns > 2 else 0  # both predictions of a network stay together
    columns = min(columns, len(order))
    parts = [order[start : start + columns] for start in range(0, len(order), columns)]
    figure = Figure(figsize=(width, 1))
    handles = [Patch(facecolor=[part / 255 for part in class_colour(number)], edgecolor="black", linewidth=0.4)
               for number, _ in shown.legend]  # fmt: skip
    legend = add_legend(figure, handles, [named(name) for _, name in shown.legend], size, "lower") if handles else None
    below = height_of(figure, legend) + 0.08 if legend else 0
    left = _margin(shown, width, columns, size, named)
    wide = (width - left - GAP * (columns - 1)) / columns
    over = line + 0.03 if labels and not left else 0.0  # the names of runs stand over their panels, not beside them
    # From the top down, in inches.
    height = 0.0
    places: list[tuple[Line, list[Panel], float, bool]] = []
    for number, one in enumerate(shown.lines):
        for part in parts:
            headed = number == 0 or len(parts) > 1
            if headed:
                height += _head(part, shown, wide, size, named) + (0.04 if number else 0)
            height += over if part is parts[0] else 0
            places.append((one, part, height, headed))
            height += _tall(one, wide) + GAP
        if labels and one.label == shown.lines[-1].label:  # the last run of an image
            height += 2 * GAP
    total = height + below
    figure.set_figheight(total)
    for one, part, top, headed in places:
        tall = _tall(one, wide)
        first = part is parts[0]
        for column, panel in enumerate(part):
            corner = (left + column * (wide + GAP)) / width, 1 - (top + tall) / total
            axes = figure.add_axes((*corner, wide / width, tall / total))
            axes.imshow(one.panels[panel], aspect="auto")
            axes.set_axis_off()
        for text, start, end, above, ruled in _headings(part, shown, wide, size, named) if headed else ():
            middle = (left + (start + end) / 2) / width
            bottom = 1 - (top - above - 0.03 - over * first) / total
            for number, words in enumerate(reversed(text.split("\n"))):  # on baselines, whatever letters there are
                baseline = bottom + (number * line + 0.24 * size / 72) / total
                figure.text(middle, baseline, words, ha="center", va="baseline", fontsize=size)
            if ruled:
                ends = [(left + start + 0.05) / width, (left + end - 0.05) / width]
                figure.add_artist(Line2D(ends, [bottom - 0.01 / total] * 2, color=GREY, linewidth=0.6))
        if first and over:
            figure.text(0, 1 - (top - 0.03) / total, one.label, ha="left", va="bottom", fontsize=size)
        elif first and one.label:
            text = fitted(one.label, tall, size)
            place = (left - 0.04) / width, 1 - (top + tall / 2) / total
            figure.text(*place, text, rotation=90, ha="right", va="center", fontsize=size, linespacing=1.1)
    return figure


def _margin(shown: Pictures, width: float, columns: int, size: float, named: Callable[[str], str]) -> float:
    """Inches at the left for the names of runs, in one or two lines beside their panels; 0 if they are too long."""
    labelled = [one for one in shown.lines if one.label]
    for lines in (1, 2) if labelled else ():
        left = lines * 1.2 * size / 72 + 0.06
        wide = (width - left - GAP * (columns - 1)) / columns
        texts = [(one.label, _tall(one, wide)) for one in labelled]
        if all(breaks_well(*text, size) and fitted(*text, size).count("\n") < lines for text in texts):
            return left
    return 0.0


def _headings(
    part: Sequence[Panel], shown: Pictures, wide: float, size: float, named: Callable[[str], str]
) -> Iterator[tuple[str, float, float, float, bool]]:
    """Text, left and right end, distance from the panels in inches, and whether there is a rule below it."""
    line = 1.2 * size / 72
    texts = [fitted(panel.shows if panel.network else shown.captions[panel.shows], wide, size) for panel in part]
    for column, text in enumerate(texts):
        yield text, column * (wide + GAP), column * (wide + GAP) + wide, 0, False
    above = line * max(
        (text.count("\n") + 1 for panel, text in zip(part, texts, strict=True) if panel.network), default=0
    )
    for network in dict.fromkeys(panel.network for panel in part if panel.network):
        columns = [column for column, panel in enumerate(part) if panel.network == network]
        start, end = columns[0] * (wide + GAP), columns[-1] * (wide + GAP) + wide
        yield fitted(named(network), end - start, size), start, end, above + 0.03, True


def _head(part: Sequence[Panel], shown: Pictures, wide: float, size: float, named: Callable[[str], str]) -> float:
    """The height of what stands above a line of panels."""
    line = 1.2 * size / 72
    return 0.04 + max(
        above + line * (text.count("\n") + 1) for text, _, _, above, _ in _headings(part, shown, wide, size, named)
    )


def _tall(line: Line, wide: float) -> float:
    """The height of the panels of a line, in inches."""
    pixels = next(iter(line.panels.values()))
    return wide * pixels.shape[0] / pixels.shape[1]


def _strips(run: Run) -> dict[str, Strip]:
    """The pictures that a run keeps, by the image's name."""
    try:
        found = [read_strip(path) for path in panel_files(run.folder)]
    except StripError as error:
        raise RunsError(f"{error}; delete it to do without this picture") from error
    if not found:
        raise RunsError(
            f"'{run.folder}' keeps no pictures\npredict --image_logger.count=8 keeps those of the first eight images"
        )
    return {strip.name: strip for strip in found}


def _check_same_photo(name: str, runs: Sequence[Run]) -> None:
    """Raise an error if runs have other photos of one name; those that kept no digests are believed."""
    kept = [(run, {photo_digest(one) for one in run.records if one.name == name} - {""}) for run in runs]
    known = [(run, digests) for run, digests in kept if digests]
    for run, digests in known[1:]:
        first, of_first = known[0]
        if digests != of_first:
            raise RunsError(
                f"'{name}' is another photo in '{run.folder}' than in '{first.folder}'\n"
                "give runs of the same photos, or name others with --images"
            )


def _known(name: str, known: Sequence[str]) -> str:
    """The full name of an image."""
    found = [one for one in known if name in (one, one.rpartition("/")[2])]
    if len(found) > 1:
        raise RunsError(
            f"--images: '{name}' is the name of {len(found)} images\ngive it in full: {', '.join(found[:3])}"
        )
    if not found:
        more = f" and {len(known) - 5} more" if len(known) > 5 else ""
        raise RunsError(
            f"--images: there is no picture of '{name}', but of {', '.join(known[:5])}{more}\n"
            "predict --image_logger.count=N keeps those of the first N images"
        )
    return found[0]


def _chosen(run: Run, words: Sequence[str] | None) -> list[Panel]:
    """The panels that are meant by words, in the order of the words."""
    networks = sorted(run.targets, key=lambda name: not run.targets[name])
    found: list[Panel] = []
    for word in [*WORDS, *networks] if words is None else words:
        if word not in WORDS and word not in networks:
            raise RunsError(f"--panels: there is no '{word}'\nknown: {', '.join([*WORDS, *networks])}")
        shows = [Panel(word)] if word in WORDS else [Panel(CLEAN, word), Panel(ADVERSARIAL, word)]
        found += [panel for panel in shows if panel not in found]
    return found

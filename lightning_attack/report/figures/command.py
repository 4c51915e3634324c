"""The command `figure`: finished runs as a figure for a paper."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.image import AxesImage

from lightning_attack.common.atomic import atomic_write, check_folder
from lightning_attack.report.checks import check_draws, check_outside_runs
from lightning_attack.report.collect import collect
from lightning_attack.report.facts import doubts
from lightning_attack.report.figures import entries
from lightning_attack.report.figures.curves import draw_curves
from lightning_attack.report.figures.display import Display
from lightning_attack.report.figures.matrix import draw_matrices, matrices
from lightning_attack.report.figures.strip import draw_strip, pictures
from lightning_attack.report.figures.style import WIDTHS, rc
from lightning_attack.report.groups import Group, group_runs
from lightning_attack.report.intervals import DRAWS, Interval
from lightning_attack.report.row_names import short_folders
from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run

Kind = Literal["strip", "steps", "eps", "passes", "strength", "matrix"]
CURVES = {
    "steps": entries.over_steps,
    "eps": entries.over_eps,
    "passes": entries.over_passes,
    "strength": entries.over_strength,
}
SUFFIXES = (".pdf", ".svg", ".png", ".jpg")
WITHOUT_DATE = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""What is said to writers so that the same runs give the same file."""
WIDEST = 40.0


def figure(
    kind: Kind,
    runs: Sequence[str],
    output: Sequence[str],
    width: str = "page",
    columns: int | None = None,
    names: Sequence[str] = (),
    font: str = "sans-serif",
    font_size: float = 7,
    dpi: int = 300,
    partial: bool = False,
    images: Sequence[str] | None = None,
    panels: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    mean: bool = False,
    common: bool = False,
    draws: int = DRAWS,
) -> None:
    """Draw finished runs and write the figure to one or more files.

    Args:
        kind: `strip`, pictures of images and predictions; `steps`, `eps` and `passes`, curves of mIoU over the steps of
            the attack, its radius and its backward passes; `strength`, over a setting of a defence; `matrix`, mIoU of
            each source and target.
        runs: Folders of runs, or folders above them.
        output: Files; the suffix chooses the format, of `SUFFIXES`.
        width: `column`, `page`, see `style.WIDTHS`, or inches.
        columns: Panels in a row; None = as many as fit.
        names: `NAME=TEXT`: what attacks, networks and classes are called in the figure.
        font: Family or name of a font.
        font_size: In points.
        dpi: Pixels in an inch of PNG and JPEG.
        partial: Draw runs that were stopped too.
        images: Of a strip: names of the images; None = the first ones.
        panels: Of a strip: which panels, in this order; None = all.
        targets: Of the others: which networks; None = all.
        mean: Runs that differ in nothing but their seed become one line with their mean.
        common: Show runs of different images on those that all have.
        draws: How often images are drawn for the intervals.

    Raises:
        RunsError: something that was asked for cannot be drawn; nothing is written.
    """
    files = _files(output)
    inches = _inches(width)
    _check(columns, font, font_size, dpi, draws)
    found, notes = collect(runs, partial)
    display = Display.of(names, found)
    with mpl.rc_context(rc(font, font_size)):
        if kind == "strip":
            _group(found, common=True)
            shown = pictures(found, images, panels, display.attack)
            drawn = draw_strip(shown, inches, font_size, columns, display)
            notes.append(f"the strip shows {', '.join(shown.images)}")
        else:
            group = _group(found, common)
            chosen = _targets(group, targets)
            if kind == "matrix":
                on_clean, found_matrices = matrices(group, chosen, mean, draws, display.attack)
                notes += _check_scored(on_clean.items(), chosen)
                drawn = draw_matrices(on_clean, found_matrices, inches, font_size, columns, display)
            else:
                axis, facets = CURVES[kind](group, chosen, mean, draws, display.attack)
                notes += _check_scored([(facet.target, facet.clean) for facet in facets], chosen)
                notes += axis.notes
                drawn = draw_curves(axis, facets, inches, font_size, columns, display)
        _write(drawn, files, dpi)
    for note in [*notes, *doubts(found, short_folders(found))]:
        print(f"Note: {note}")
    print(f"Figure: {', '.join(map(str, files))}")


def _write(drawn: Figure, files: Sequence[Path], dpi: int) -> None:
    """Write all files, or none of them."""
    with ExitStack() as complete:
        for path in files:
            unfinished = complete.enter_context(atomic_write(path))
            suffix = path.suffix.lower()
            for picture in drawn.findobj(AxesImage):
                # Files of lines hold the picture's own pixels; in others they are smoothly resized.
                picture.set_interpolation("none" if suffix in (".pdf", ".svg") else "antialiased")
            options = {"pil_kwargs": {"quality": 85, "optimize": True}} if suffix == ".jpg" else {}
            drawn.savefig(unfinished, format=suffix[1:], dpi=dpi, metadata=WITHOUT_DATE.get(suffix), **options)


def _files(output: Sequence[str]) -> list[Path]:
    files = list(map(Path, output))
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise RunsError(f"--output={path}: the end of the name chooses the format\nallowed: {', '.join(SUFFIXES)}")
        if path.is_dir():
            raise RunsError(f"--output={path} is a folder; give a file")
        check_folder(path.parent)
        check_outside_runs(path, path.parent)
    return files


def _inches(width: str) -> float:
    try:
        inches = WIDTHS.get(width) or float(width)
    except ValueError:
        inches = 0.0
    if not 1 <= inches <= WIDEST:
        known = ", ".join(f"{name} ({size} in)" for name, size in WIDTHS.items())
        raise RunsError(f"--width={width}: give {known}, or 1 to {WIDEST:g} inches")
    return inches


def _check(columns: int | None, font: str, font_size: float, dpi: int, draws: int) -> None:
    if columns is not None and columns < 1:
        raise RunsError(f"--columns={columns}: give 1 or more")
    if not 4 <= font_size <= 40:
        raise RunsError(f"--font_size={font_size:g}: give 4 to 40 points")
    if not 30 <= dpi <= 2400:
        raise RunsError(f"--dpi={dpi}: give 30 to 2400 pixels an inch")
    check_draws(draws)
    try:
        findfont(FontProperties(family=[font]), fallback_to_default=False)
    except ValueError as error:
        raise RunsError(
            f"--font={font}: matplotlib finds no such font\ngive sans-serif, serif, or the name of an installed one"
        ) from error


def _group(runs: Sequence[Run], common: bool) -> Group:
    """The runs as one group that can be compared."""
    groups, reasons = group_runs(runs, common)
    if len(groups) > 1:
        raise RunsError(f"one figure cannot show these runs: {reasons[0]}\ngive those of one table of the report")
    return groups[0]


def _targets(group: Group, names: Sequence[str] | None) -> tuple[str, ...]:
    """The networks that are asked for, in this order; None = all."""
    for name in names or ():
        if name not in group.targets:
            raise RunsError(f"--targets: there is no network '{name}'\nknown: {', '.join(group.targets)}")
    return group.targets if names is None else tuple(dict.fromkeys(names))


def _check_scored(clean: Collection[tuple[str, Interval]], targets: Sequence[str]) -> list[str]:
    """Raise an error if there is nothing to draw: the networks could be scored on no image, or have no mIoU there.

    Args:
        clean: the mIoU of those that could be scored, by their names.
        targets: those that were asked for.

    Returns:
        A note on those that could not be scored, if others could.
    """
    if not clean:
        raise RunsError(
            f"there is nothing to draw: {', '.join(targets)} could be scored on none of the images\nrun them again"
        )
    if all(math.isnan(one.value) for _, one in clean):
        raise RunsError(
            f"there is nothing to draw: {', '.join(targets)} have no mIoU, for no pixel of the photos has a label\n"
            "give runs of photos with labels"
        )
    scored = {name for name, _ in clean}
    left_out = [name for name in targets if name not in scored]
    return [f"{', '.join(left_out)}: not drawn, could be scored on none of the images."] if left_out else []

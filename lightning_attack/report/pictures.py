"""Pictures of a run for the page: its strips of panels, cut apart and packed into the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_attack.runs.errors import RunsError
from lightning_attack.runs.folder import Run
from lightning_attack.runs.names import panel_files
from lightning_attack.runs.panels import DIFFERENCE, Panel, StripError, cut, panel_order, read_strip

QUALITY = 90


@dataclass(frozen=True)
class Views:
    """One image of a run.

    Attributes:
        name: of the image.
        pictures: data URIs of equal size by their titles: photos, labels and what each network predicts.
    """

    name: str
    pictures: dict[str, str]


def gallery(run: Run, most: int) -> Iterator[Views]:
    """The first images that have panels (`ImageLogger`), `most` at most.

    Photos are packed as WebP with little loss, label maps without any; exact images are in the run's folder.

    Raises:
        RunsError: a strip of panels cannot be read, or has panels of other networks than the run.
    """
    for path in panel_files(run.folder)[:most]:
        yield _views(run, path)


def titles(run: Run) -> list[str]:
    """What the panels of a strip show, from left to right."""
    return list(map(_title, panel_order(run.targets)))


def _title(panel: Panel) -> str:
    if panel.network:
        return f"prediction of {panel.network}: {panel.shows}"
    return f"{panel.shows} (magnified)" if panel.shows == DIFFERENCE else panel.shows


def _views(run: Run, path: Path) -> Views:
    remedy = "delete it to do without its pictures"
    try:
        strip = read_strip(path)
    except StripError as error:
        raise RunsError(f"{error}; {remedy}") from error
    try:
        panels = cut(strip.pixels, run.targets)
    except StripError as error:
        raise RunsError(f"'{path}' is {error} ({', '.join(titles(run))}); {remedy}") from error
    return Views(strip.name, {_title(panel): _packed(pixels, panel.has_classes) for panel, pixels in panels.items()})


def _packed(pixels: np.ndarray, has_classes: bool) -> str:
    picture, content = Image.fromarray(pixels), io.BytesIO()
    if has_classes:
        picture.quantize(256, dither=Image.Dither.NONE).save(content, format="png")
    else:
        picture.save(content, format="webp", quality=QUALITY, method=2)
    kind = "png" if has_classes else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"

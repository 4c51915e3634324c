"""Pictures of a run for the page: its panels, cut apart and packed into the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lightning_attack.runs.folder import Run, RunsError

PHOTOS = ("clean", "adversarial", "difference (magnified)")
QUALITY = 90


@dataclass(frozen=True)
class Views:
    """One image of a run.

    Attributes:
        name: of the image.
        pictures: by what they show data URIs of equal size: photos, labels and what each network predicts.
    """

    name: str
    pictures: dict[str, str]


def gallery(run: Run, most: int) -> Iterator[Views]:
    """The first images that have panels (`ImageLogger`), `most` at most.

    Photos are packed as WebP with little loss, label maps without any; exact images are in the run's folder.

    Raises:
        RunsError: a strip of panels cannot be read, or has panels of other networks than the run.
    """
    for path in sorted((run.folder / "panels").glob("[0-9]*.png"))[:most]:
        yield _views(run, path)


def titles(run: Run) -> list[str]:
    """What the panels of a strip show, from left to right."""
    first = sorted(run.targets, key=lambda name: not run.targets[name])
    predictions = [f"prediction of {name}: {condition}" for name in first for condition in ("clean", "adversarial")]
    return [*PHOTOS, "labels", *predictions]


def _views(run: Run, path: Path) -> Views:
    names = titles(run)
    try:
        with Image.open(path) as strip:
            name = getattr(strip, "text", {}).get("name", path.stem)
            pixels = strip.convert("RGB")
    except OSError as error:
        raise RunsError(f"'{path}' cannot be read ({error}); delete it to do without its pictures") from error
    width, rest = divmod(pixels.width, len(names))
    if rest:
        raise RunsError(
            f"'{path}' is {pixels.width} pixels wide, which is no strip of {len(names)} panels ({', '.join(names)}); "
            "delete it to do without its pictures"
        )
    panels = (pixels.crop((place * width, 0, (place + 1) * width, pixels.height)) for place in range(len(names)))
    return Views(name, {title: _packed(panel, title in PHOTOS) for title, panel in zip(names, panels, strict=True)})


def _packed(picture: Image.Image, photo: bool) -> str:
    content = io.BytesIO()
    if photo:
        picture.save(content, format="webp", quality=QUALITY, method=2)
    else:
        picture.quantize(256, dither=Image.Dither.NONE).save(content, format="png")
    kind = "webp" if photo else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"

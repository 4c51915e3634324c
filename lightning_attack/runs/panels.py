"""Strips of panels: one image of a run and what each network predicts on it, side by side in one PNG."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lightning_attack.common.atomic import atomic_write
from lightning_attack.runs.names import panel_files
from lightning_attack.runs.summary import CONDITIONS

CLEAN, ADVERSARIAL = CONDITIONS
DIFFERENCE, LABELS = "difference", "labels"
_NAME, _MAGNIFY = "name", "magnify"


class StripError(ValueError):
    """A strip that cannot be read, or that has another number of panels than expected."""


@dataclass(frozen=True)
class Panel:
    """What one panel of a strip shows.

    Attributes:
        shows: `clean` and `adversarial` image, `difference` of the two, or `labels`; of a prediction the image that it
            was made on.
        network: whose prediction it is; None for the others.
    """

    shows: str
    network: str | None = None

    @property
    def has_classes(self) -> bool:
        """Whether its colours stand for classes; the other panels are photos."""
        return self.network is not None or self.shows == LABELS


@dataclass(frozen=True)
class Strip:
    """A strip as it was read.

    Attributes:
        name: of the image.
        pixels: (H, panels x W, 3) uint8.
        magnify: factor of the difference; None where an older version wrote the strip.
    """

    name: str
    pixels: np.ndarray
    magnify: float | None = None


def panel_order(networks: Mapping[str, bool]) -> tuple[Panel, ...]:
    """The panels of a strip from left to right: photos first, and of the networks the source first.

    Args:
        networks: the scored networks by name -> whether it is the source (white box).

    Example:
        >>> for panel in panel_order({"other": False, "source": True}):
        ...     print(panel.network, panel.shows)
        None clean
        None adversarial
        None difference
        None labels
        source clean
        source adversarial
        other clean
        other adversarial
    """
    source_first = sorted(networks, key=lambda name: not networks[name])
    predictions = (Panel(condition, name) for name in source_first for condition in CONDITIONS)
    return (Panel(CLEAN), Panel(ADVERSARIAL), Panel(DIFFERENCE), Panel(LABELS), *predictions)


def with_classes(pixels: np.ndarray, networks: Mapping[str, bool]) -> np.ndarray:
    """Of a strip (H, panels x W, 3) the part whose colours stand for classes."""
    order = panel_order(networks)
    photos = sum(not panel.has_classes for panel in order)
    return pixels[:, pixels.shape[1] // len(order) * photos :]


def write_strip(path: Path, strip: Strip) -> None:
    """Write a strip as PNG; the image's name, which may have folders in it, goes inside."""
    info = PngInfo()
    info.add_text(_NAME, strip.name)
    if strip.magnify is not None:
        info.add_text(_MAGNIFY, f"{strip.magnify:g}")
    with atomic_write(path) as unfinished:
        Image.fromarray(strip.pixels).save(unfinished, format="png", compress_level=1, pnginfo=info)


def read_strip(path: Path) -> Strip:
    """Read a strip.

    Raises:
        StripError: it is no picture that could be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_strip(Path(folder) / "a.png", Strip("town/a", np.zeros((2, 12, 3), np.uint8), magnify=10))
        ...     strip = read_strip(Path(folder) / "a.png")
        >>> strip.name, strip.magnify, strip.pixels.shape, len(cut(strip.pixels, {"net": True}))
        ('town/a', 10.0, (2, 12, 3), 6)
    """
    try:
        with Image.open(path) as picture:
            texts = getattr(picture, "text", {})
            magnify = float(texts[_MAGNIFY]) if _MAGNIFY in texts else None
            return Strip(texts.get(_NAME, path.stem), np.array(picture.convert("RGB")), magnify)
    except (OSError, ValueError) as error:
        raise StripError(f"'{path}' cannot be read ({error})") from error


def keep_strips(folder: Path, indices: Collection[int]) -> None:
    """Delete the strips of other images; no process may be writing."""
    for path in panel_files(folder):
        if int(path.stem) not in indices:
            path.unlink()


def cut(pixels: np.ndarray, networks: Mapping[str, bool]) -> dict[Panel, np.ndarray]:
    """A strip cut into its panels, in the order of `panel_order`.

    Raises:
        StripError: its width is no multiple of the number of panels.
    """
    order = panel_order(networks)
    width, rest = divmod(pixels.shape[1], len(order))
    if rest:
        raise StripError(f"{pixels.shape[1]} pixels wide, which is no strip of {len(order)} panels")
    return {panel: pixels[:, place * width : (place + 1) * width] for place, panel in enumerate(order)}

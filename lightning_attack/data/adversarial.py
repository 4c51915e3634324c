"""Adversarial images that were made elsewhere: read, checked, and brought to the geometry of their photos."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_attack.common.pixels import parse_pixels
from lightning_attack.data.adversarial_files import Gallery, MissingError, Picture
from lightning_attack.data.adversarial_survey import AdversarialSurvey
from lightning_attack.data.base import DataError
from lightning_attack.data.transforms import Fit

COLOURS = ("red", "green", "blue")
TOLERANCE = 1e-3
"""In levels of 1/255: room for float32 at the edge of a budget, far below what an image can show."""


class BudgetError(DataError):
    """An adversarial image is farther from its photo than allowed, by `excess` levels of 1/255."""

    def __init__(self, message: str, excess: float) -> None:
        super().__init__(message)
        self.excess = excess


class Adversaries:
    """Gives the adversarial image of each photo of a run, brought to the size of the run.

    An image has the size of the photo as networks see it, and is taken as it is, or that of the photo on disk, and is
    resized like the photo (of a floating image its difference from the photo is resized). Images are 8-bit, or floating
    in [0, 1].

    Args:
        gallery: where the images are.
        fit: how photos are resized.
        order: positions of the run's photos in the data set.
        total: how many photos the data set has.
        eps: largest change of a value, of [0, 1] pixels, in the size in which the images come; None = any.
        survey: sees each pair as it is read.
    """

    def __init__(
        self,
        gallery: Gallery,
        fit: Fit,
        order: Sequence[int],
        total: int,
        eps: float | None = None,
        survey: AdversarialSurvey | None = None,
    ) -> None:
        self.gallery, self.fit, self.order, self.total, self.eps = gallery, fit, order, total, eps
        self.survey = survey

    def __call__(self, name: str, index: int, photo: Tensor, seen: Tensor) -> Tensor:
        """The adversarial image (3, H, W) float32 in [0, 1] of a photo.

        Args:
            name: of the photo.
            index: its position in the data set.
            photo: (3, H, W) uint8, as on disk.
            seen: the same photo as networks see it.

        Raises:
            MissingError: there is none.
            BudgetError: it is beyond eps.
            DataError: it has another size, or is no image.
        """
        picture = self.gallery.picture(name, index, self.order, self.total)
        for clean in (seen, photo):
            if axes := _axes(picture.shape, tuple(clean.shape[-2:])):
                break
        else:
            sizes = " or ".join(dict.fromkeys(f"{one.shape[-2]}x{one.shape[-1]}" for one in (seen, photo)))
            raise DataError(
                f"adversarial image {picture.said} is {'x'.join(map(str, picture.shape))}; its photo '{name}' is "
                f"{sizes} (height x width{'' if seen.shape == photo.shape else ': as networks see it, or on disk'}), "
                "with 3 colours"
            )
        image = picture_values(picture, clean).reshape([picture.shape[axis] for axis in axes.kept]).permute(axes.order)
        if self.survey is not None:
            self.survey.see(name, image, clean)
        self._check_budget(picture, image, clean)
        if clean.shape == seen.shape:
            return _unit(image).contiguous()
        if image.dtype == torch.uint8:
            return _unit(self.fit(image, None)[0]).contiguous()
        # Photos are resized in 8 bits, which rounds differently: so only the change is resized here.
        change = self.fit(image, None)[0] - self.fit(_unit(clean), None)[0]
        return (_unit(seen) + change).clamp(0, 1)

    def _check_budget(self, picture: Picture, image: Tensor, clean: Tensor) -> None:
        if self.eps is None:
            return
        change = (_unit(image).double() - _unit(clean).double()).abs() * 255
        worst = float(change.max())
        if worst <= self.eps * 255 + TOLERANCE:
            return
        colour, row, column = (int(one) for one in torch.unravel_index(change.argmax(), change.shape))
        beyond = int((change > self.eps * 255 + TOLERANCE).sum())
        raise BudgetError(
            f"adversarial image {picture.said} is up to {worst:.4g}/255 from its photo, more than the budget of "
            f"{self.eps * 255:.4g}/255: at row {row}, column {column}, {COLOURS[colour]}, and at {beyond} of "
            f"{change.numel()} values",
            worst - self.eps * 255,
        )


class _Axes(NamedTuple):
    kept: list[int]
    order: list[int]


def _axes(shape: tuple[int, ...], size: tuple[int, ...]) -> _Axes | None:
    """How an array of a shape becomes (3, H, W) of a size; None if it cannot. A single image may be a batch of one."""
    kept = list(range(len(shape)))[1 if len(shape) == 4 and shape[0] == 1 else 0 :]
    inner = tuple(shape[axis] for axis in kept)
    if inner == (3, *size):
        return _Axes(kept, [0, 1, 2])
    return _Axes(kept, [2, 0, 1]) if inner == (*size, 3) else None


def picture_values(picture: Picture, clean: Tensor) -> Tensor:
    """The values of an image, uint8 or float32 in [0, 1].

    Args:
        picture: the image.
        clean: its photo, uint8.

    Raises:
        DataError: they are of another type or out of range, or it is not clear which range is meant.

    Example:
        >>> bright = torch.full((3, 1, 1), 200, dtype=torch.uint8)
        >>> picture_values(Picture("'a.npy'", (3, 1, 1), "float32", lambda: torch.full((3, 1, 1), 203.0)), bright)
        Traceback (most recent call last):
            ...
        lightning_attack.data.base.DataError: adversarial image 'a.npy' is float32 with values 203..203; floating \
images must be in [0, 1] and those in 0..255 of type uint8: divide by 255, or convert
    """
    said = f"adversarial image {picture.said} is {picture.dtype}"
    if picture.dtype not in ("uint8", "float16", "bfloat16", "float32", "float64"):
        raise DataError(f"{said}; expected uint8 in 0..255 or floating values in [0, 1]")
    values = picture.read()
    if picture.dtype == "uint8":
        if int(values.max()) <= 1 and int(clean.max()) > 127:
            raise DataError(f"{said} with values 0 and 1 only; were they in [0, 1] before they were cut to integers?")
        return values
    values = values.float()
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN too
        remedy = "divide by 255, or convert" if low >= 0 else "undo the normalisation"
        raise DataError(
            f"{said} with values {low:.4g}..{high:.4g}; floating images must be in [0, 1] and those in 0..255 of type "
            f"uint8: {remedy}"
        )
    return values.clamp(0, 1)


def together(problems: Sequence[MissingError | BudgetError], gallery: Gallery, total: int) -> DataError:
    """One error for all photos of a run that have no image, or one beyond the budget."""
    missing = [error.name for error in problems if isinstance(error, MissingError)]
    if missing:
        return gallery.missing(missing, total)
    beyond = [error for error in problems if isinstance(error, BudgetError)]
    worst = max(beyond, key=lambda error: error.excess)
    return DataError(
        f"{len(beyond)} of {total} adversarial images exceed data.adversarial_eps, the worst: {worst}; "
        "--on_error=skip leaves them out"
    )


def parse_eps(eps: float | str | None) -> float | None:
    """The L-inf radius `adversarial_eps` as a number: `8/255` and 0.03 are allowed, None stays None.

    Raises:
        ValueError: it is not above 0 and at most 1.

    Example:
        >>> parse_eps("51/255"), parse_eps(None)
        (0.2, None)
    """
    if eps is None:
        return None
    try:
        value = parse_pixels(eps)
    except ValueError:
        value = nan
    if not value <= 1:
        raise ValueError(f"adversarial_eps={eps!r}: must be above 0 and at most 1, such as 8/255")
    return value


def _unit(image: Tensor) -> Tensor:
    """uint8 as float32 in [0, 1]; floating images as they are."""
    return image.float() / 255 if image.dtype == torch.uint8 else image

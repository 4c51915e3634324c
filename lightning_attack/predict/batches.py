"""`Batch`: the format of the batches that `AttackModule` takes, and what is done to batches before the attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from lightning_attack.attacks.errors import AttackError
from lightning_attack.common.labels import IGNORE_INDEX

Skipped = tuple[int, str, str]
"""An image that was left out: position in the data set, name, reason."""


class Batch(TypedDict, total=False):
    """A batch of `AttackModule.predict_step`: a dictionary of which only `image` must be there.

    `SegmentationDataModule` gives such batches, and any other `DataLoader` may. Instead of a dictionary it may give the
    images alone, or images and masks as a tuple. Keys that are not listed here are ignored.
    """

    image: Tensor
    """Clean images, (B, 3, H, W), floating, in [0, 1]; not normalised, which is up to the networks."""
    mask: Tensor
    """True classes, (B, H, W), integers in 0..C-1, 255 = ignored. Without it the source's clean prediction counts."""
    index: Tensor
    """Positions in the data set, (B,) integers, each one once in a run: they seed the images' random numbers and number
    their records. Without it they are those that the loader's sampler drew, see `AttackModule`."""
    name: list[str]
    """Names in reports and of the PNG files, without suffix, each one once in a run. Without it `image_<index>`."""
    digest: list[str]
    """Hashes of the images with all that belongs to them: key of cached clean predictions, and how a run that goes on
    notices that a photo has changed. Without it nothing is cached, and nothing noticed."""
    region: Tensor
    """Where images may change, (B, H, W) bool. Without it everywhere."""
    target_mask: Tensor
    """Wanted classes for `target_labels="masks"`, (B, H, W), integers in 0..C-1, 255 = none wanted."""
    partners: Tensor
    """Other images of the data set for attacks that mix images, (B, P, 3, H, W), floating, in [0, 1]. Without it those
    attacks mix the images of the batch."""
    adversarial: Tensor
    """Adversarial images that were made elsewhere, for the attacks `Given` and `NoAttack`; like `image`."""
    adversarial_eps: Tensor | float
    """L-inf radius inside which these are rounded to 8 bits, of [0, 1] pixels, the same for all: a number, or (B,).
    Without it they are rounded to the nearest level."""
    skipped: list[Skipped]
    """Images that could not be read and are in no other key. A batch of nothing else is allowed."""


class BatchError(AttackError):
    """A batch that is not of the form of `Batch`; the message says what was given and what is expected."""


_LABELS = ("label", "labels", "masks", "target", "targets", "gt", "seg", "segmentation", "annotation", "semantic")
"""Keys under which other projects keep label maps."""
_FORM = (
    "a batch is a dictionary with 'image' (B, 3, H, W) in [0, 1] and, if there are labels, 'mask' (B, H, W); images "
    "alone or the tuple (images, masks) are taken too (lightning_attack.predict.Batch has all keys)"
)


def as_batch(
    given: Any, num_classes: int, positions: Callable[[int], Sequence[int]], dtype: torch.dtype = torch.float32
) -> Batch:
    """What a loader gave, checked and completed: it has `index` and `name` for every image.

    Args:
        given: a dictionary as `Batch` describes it, images, or images and masks.
        num_classes: C, for the range of the masks.
        positions: the positions in the data set of so many images, if the batch has no `index`.
        dtype: type of the networks, which images get.

    Raises:
        BatchError: it is none of these, or shapes, types or classes are wrong.

    Example:
        >>> batch = as_batch([torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4).int()], 8, lambda count: [4, 5])
        >>> batch["name"], batch["index"].tolist(), batch["mask"].dtype
        (['image_000004', 'image_000005'], [4, 5], torch.int64)
    """
    found = _by_key(given)
    if "image" not in found:
        if "skipped" in found:
            return Batch(skipped=[*found["skipped"]])
        raise BatchError(f"a batch has the keys {', '.join(map(repr, found)) or '(none)'} and no 'image'; {_FORM}")
    if "mask" not in found and (other := next((key for key in _LABELS if _is_map(found.get(key))), None)):
        raise BatchError(f"the batch has no 'mask', but '{other}': labels are read from 'mask'; {_FORM}")
    images = found["image"]
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        hint = ". Divide 8-bit images by 255" if isinstance(images, Tensor) and images.dtype == torch.uint8 else ""
        raise BatchError(f"'image' is {_said(images)}; expected (B, 3, H, W), floating, in [0, 1]{hint}")
    count = len(images)
    batch = {key: found[key] for key in Batch.__annotations__ if found.get(key) is not None}
    for key in ("image", "partners", "adversarial"):
        if isinstance(batch.get(key), Tensor) and batch[key].is_floating_point():
            batch[key] = batch[key].to(dtype)
    for key in ("mask", "target_mask"):
        if key in batch:
            batch[key] = _classes(key, batch[key], images, num_classes)
    index = batch["index"] if "index" in batch else positions(count)
    batch["index"] = index = index if isinstance(index, Tensor) else torch.as_tensor(index, device=images.device)
    if index.shape != (count,) or index.is_floating_point():
        raise BatchError(f"'index' is {_said(index)}; expected ({count},) integers, the positions in the data set")
    batch.setdefault("name", [f"image_{position:06d}" for position in index.tolist()])
    for key in ("name", "digest"):
        if key in batch:
            batch[key] = _strings(key, batch[key], count)
    if "adversarial_eps" in batch:
        eps = batch["adversarial_eps"]
        eps = eps if isinstance(eps, Tensor) else torch.tensor(eps, dtype=torch.float64)
        if eps.numel() not in (1, count) or (eps != eps.flatten()[0]).any():
            raise BatchError(f"'adversarial_eps' is {eps.tolist()}; expected one radius for all images of the batch")
        batch["adversarial_eps"] = eps.flatten()[:1].expand(count)
    return cast(Batch, batch)


def _is_map(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim >= 3


def given_eps(batch: Batch) -> float | None:
    """The radius inside which the adversarial images of a batch are rounded; None: to the nearest level."""
    return float(cast(Tensor, batch["adversarial_eps"])[0]) if "adversarial_eps" in batch else None


def split(batch: Batch, size: int) -> list[Batch]:
    """The batch in parts of `size` images; the last one may be smaller.

    Example:
        >>> [part["name"] for part in split({"image": torch.zeros(3, 1), "name": ["a", "b", "c"]}, 2)]
        [['a', 'b'], ['c']]
    """
    count = len(batch["image"])
    return [take(batch, range(start, min(start + size, count))) for start in range(0, count, size)]


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """The images at `rows` of a batch, in that order, with all that belongs to them.

    Example:
        >>> take({"image": torch.arange(3.0), "name": ["a", "b", "c"]}, [2, 0])
        {'image': tensor([2., 0.]), 'name': ['c', 'a']}
    """
    kept = {
        key: value[list(rows)] if isinstance(value, Tensor) else [cast(list[str], value)[row] for row in rows]
        for key, value in batch.items()
        if key != "skipped"
    }
    return cast(Batch, kept)


def _by_key(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, Tensor):
        return {"image": given}
    if isinstance(given, tuple | list) and 1 <= len(given) <= 2 and all(isinstance(one, Tensor) for one in given):
        return dict(zip(("image", "mask"), given, strict=False))
    inner = f" of {', '.join(map(_said, given[:6]))}" if isinstance(given, tuple | list) and given else ""
    raise BatchError(f"a batch is a {type(given).__name__}{inner}; {_FORM}")


def _classes(key: str, mask: object, images: Tensor, num_classes: int) -> Tensor:
    expected = len(images), *images.shape[-2:]
    if not isinstance(mask, Tensor) or mask.shape != expected or mask.is_floating_point() or mask.is_complex():
        raise BatchError(f"'{key}' is {_said(mask)}; expected {expected}, integers, one class per pixel")
    mask = mask.long()
    foreign = ((mask < 0) | (mask >= num_classes)) & (mask != IGNORE_INDEX)
    if foreign.any():
        raise BatchError(
            f"'{key}' holds the class {int(mask[foreign][0])}, but the networks have the classes 0..{num_classes - 1}; "
            f"pixels without a class are {IGNORE_INDEX}"
        )
    return mask


def _strings(key: str, values: object, count: int) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        raise BatchError(f"'{key}' is {_said(values)}; expected {count} strings, one per image")
    return [str(value) for value in values]


def _said(value: object) -> str:
    """A value in a few words, for messages."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    return f"{type(value).__name__} {value!r}"[:60]

"""`SegmentationDataModule`: batches of photos and masks for attacks and for training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_attack.common.first_process import in_first_process
from lightning_attack.common.labels import class_advice
from lightning_attack.data.adversarial import Adversaries, parse_eps
from lightning_attack.data.adversarial_files import Gallery
from lightning_attack.data.adversarial_survey import AdversarialSurvey
from lightning_attack.data.augment import Augment
from lightning_attack.data.base import DataError, SegmentationDataset
from lightning_attack.data.in_threads import in_threads
from lightning_attack.data.photo_check import (
    MOST_BEFORE,
    SAMPLE,
    CheckAhead,
    PhotoCheck,
    When,
    spread,
    when_to_check,
)
from lightning_attack.data.scene_form import check_classes
from lightning_attack.data.scenes import Item, Lenient, Partners, SceneTensors, Share, collate, one_size, unpacked
from lightning_attack.data.survey import Progress, Survey, survey_all
from lightning_attack.data.transforms import Fit

MOST_SIZES = 2000
"""Photos whose sizes are looked up, which takes some 0.1 ms each, before a run."""


class SegmentationDataModule(LightningDataModule):
    """Batches for predict (`dataset`), fit (`train`, `val`) and validate (`val`).

    A batch is a dictionary of the form of `lightning_attack.predict.Batch`: `image`, `name`, `digest`, `index`, and
    `mask` where the data set has labels; with `target_masks`, `region_masks` and `adversarial_root` also `target_mask`,
    `region`, `adversarial` and `adversarial_eps`. It has `size` beside these, (B, 2) int64: height and width of each
    photo on disk.

    Args:
        dataset: photos to attack.
        train: photos to learn from.
        val: photos for validation while learning.
        batch_size: photos in a batch. With `size: null` photos differ in size: use 1.
        size: height and width (or one number for both) to which every photo is brought; None keeps each photo's own.
        fit: how: `stretch` (aspect ratio is lost, the whole photo stays), `crop` (short side to size, centre crop),
            `pad` (long side to size, the rest is black and ignored) or `long_side` (as `pad`, but nothing is added:
            use batch size 1).
        size_divisor: pad photos of several sizes, as `pad` does, to sides that are multiples of it. Fewer sizes run
            faster where networks are rewritten for each; predictions change a little. None: not.
        every: attack every n-th photo only, beginning with the first; 1 = all.
        limit: attack only the first so many of these; None = all.
        num_workers: processes that read photos beside the main one; None: one where a GPU would wait for photos (CUDA),
            else none.
        target_masks: folder of label maps `<name>.png` with the wanted class of each pixel, 255 = none wanted; for
            `model.target_labels: masks`.
        region_masks: folder of masks `<name>.png`: the attack may change a photo where its mask is above 0; scores are
            then reported inside and outside too.
        adversarial_root: adversarial images that were made elsewhere, for the attacks `NoAttack` and `Given`; a folder
            of files with the names of the photos, or one file with all of them, see `Gallery` and `Adversaries`.
        adversarial_eps: largest change of a value in these, of [0, 1] pixels, such as `8/255`; None: any.
        augment: random scale, crop, flip and colours of `train`, in place of `size` and `fit`.
        on_error: photos that cannot be used are an error (`raise`), or batches name them as `skipped` (`skip`).
        check: read each photo once to find those that cannot be used: `before`, `ahead` or `none`; `ahead` of the
            attack while it goes on (64 of them before), `none` of them; None: `before` for up to 2,000 photos. A data
            set that allows one reader at a time (`concurrent` is false) is read `before` in place of `ahead`.

    Raises:
        ValueError: an argument is out of range.
        DataError: the data set is empty, or there is no such folder.
    """

    def __init__(
        self,
        dataset: SegmentationDataset | None = None,
        train: SegmentationDataset | None = None,
        val: SegmentationDataset | None = None,
        batch_size: int = 1,
        size: int | tuple[int, int] | None = None,
        fit: str = "stretch",
        size_divisor: int | None = None,
        every: int = 1,
        limit: int | None = None,
        num_workers: int | None = None,
        target_masks: str | None = None,
        region_masks: str | None = None,
        adversarial_root: str | None = None,
        adversarial_eps: float | str | None = None,
        augment: Augment | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        check: When | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (num_workers is not None and num_workers < 0):
            raise ValueError(f"batch_size={batch_size} must be 1 or more, num_workers={num_workers} 0 or more")
        if every < 1 or (limit is not None and limit < 1):
            raise ValueError(f"every={every} and limit={limit} must be 1 or more (limit: null for all photos)")
        self.dataset, self.train, self.val = dataset, train, val
        self.batch_size, self.num_workers = batch_size, num_workers
        self.every, self.limit = every, limit
        self.fit = Fit(size, fit, size_divisor)
        for key, folder in (("target_masks", target_masks), ("region_masks", region_masks)):
            if folder is not None and not Path(folder).is_dir():
                raise DataError(f"data.{key}: no folder '{folder}'")
        self.target_masks, self.region_masks = target_masks, region_masks
        self.adversarial_root, self.adversarial_eps = adversarial_root, parse_eps(adversarial_eps)
        if adversarial_root is None and adversarial_eps is not None:
            raise ValueError("adversarial_eps is the budget of images that were made elsewhere: give adversarial_root")
        self._gallery = None if adversarial_root is None else Gallery(adversarial_root)
        self.augment = augment
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error={on_error!r}: must be one of raise, skip")
        self.on_error = on_error
        self._finished: frozenset[int] = frozenset()
        self._partners_seed: int | None = None
        self._check_when = check
        when_to_check(check, 0, False)  # an error here, not at the first run
        self._ahead: CheckAhead | None = None
        # A run that goes on may have fewer photos left than processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names of the photos to attack, if they have labels."""
        return self.dataset.classes if self.dataset else None

    @property
    def trained_classes(self) -> tuple[str, ...] | None:
        """Class names of the photos for validation."""
        return self.val.classes if self.val else None

    @property
    def finished(self) -> frozenset[int]:
        """Positions of the photos that `skip` leaves out."""
        return self._finished

    def skip(self, indices: Iterable[int]) -> None:
        """Leave photos out of the batches for predict, because an earlier part of the run has attacked them.

        Args:
            indices: their positions in the data set; they take the place of those of an earlier call.
        """
        self._finished = frozenset(indices)

    def set_partners(self, seed: int | None) -> None:
        """Give each photo to attack others of the data set as `partners`, for attacks that mix images.

        Args:
            seed: by which the others are chosen; None: photos get no partners.
        """
        self._partners_seed = seed

    def indices(self) -> list[int]:
        """Positions in the data set of the photos to attack, finished ones too."""
        return list(range(0, len(_given(self.dataset, "dataset", "predict")), self.every)[: self.limit])

    def facts(self) -> dict[str, Any]:
        """What is attacked, in plain values for the summary of a run.

        `dataset` (the class), `split` and `root` (where it has them), `photos` (all of it), `chosen` (by `every` and
        `limit`), `classes` (their number; None without masks), `size` (height and width; None = photos of several
        sizes, or not known), `fit`, `size_divisor`, `batch_size`.
        """
        dataset = _given(self.dataset, "dataset", "predict")
        own = {key: str(value) for key in ("split", "root") if (value := getattr(dataset, key, None)) is not None}
        return {
            "dataset": type(dataset).__name__,
            **own,
            "photos": len(dataset),
            "chosen": len(self.indices()),
            "classes": None if dataset.classes is None else len(dataset.classes),
            "size": self._common_size(),
            "fit": self.fit.mode,
            "size_divisor": self.fit.divisor,
            "batch_size": self.batch_size,
        }

    def _common_size(self) -> list[int] | None:
        """The size that was asked for, or that all photos of the run have."""
        if self.fit.size is not None:
            return list(self.fit.size)
        sizes, photos = self.image_sizes() or {}, len(self.indices())
        known = len(sizes) == 1 and photos <= MOST_SIZES and sum(sizes.values()) == photos
        return list(*sizes) if known else None

    def image_sizes(self) -> dict[tuple[int, int], int] | None:
        """How many photos of the run, finished ones too, come as images of each height and width; None: not known.

        Of more than `MOST_SIZES` photos of their own sizes, so many are looked at and stand for all.
        """
        indices = self.indices()
        if self.fit.size is not None and self.fit.mode != "long_side":
            return {self.fit.size: len(indices)}
        chosen = [indices[number] for number in spread(len(indices), MOST_SIZES)]
        sizes = self._photo_sizes(chosen)
        if sizes is None:
            return None
        found = Counter(self.fit.shape(*size) for size in sizes if all(size))
        return {shape: count * len(indices) // len(chosen) for shape, count in found.items()}

    def digests(self, indices: Iterable[int]) -> dict[int, str | None]:
        """The hashes of photos of the run, with all that belongs to each, by position; None where one is unreadable."""
        own, scenes = {*self.indices()}, self.scenes().dataset
        chosen = [index for index in indices if index in own]
        lenient = Lenient(Subset(scenes, chosen), chosen)
        threads = None if _given(self.dataset, "dataset", "predict").concurrent else 1
        read = in_threads(lambda number: lenient[number].get("digest"), len(chosen), threads)
        return dict(zip(chosen, read, strict=True))

    def scenes(self, survey: Survey | None = None, adversarial_survey: AdversarialSurvey | None = None) -> Subset[Item]:
        """The photos to attack as tensors; each keeps its position in the data set as its `index`."""
        dataset = _given(self.dataset, "dataset", "predict")
        indices = self.indices()
        partners = None if self._partners_seed is None else Partners(indices, self._partners_seed)
        adversaries = None
        if self._gallery is not None:
            adversaries = Adversaries(
                self._gallery, self.fit, indices, len(dataset), self.adversarial_eps, adversarial_survey
            )
        tensors = SceneTensors(
            dataset,
            self.fit,
            self.target_masks,
            self.region_masks,
            partners=partners,
            adversaries=adversaries,
            survey=survey,
            packed=self._on_cuda,
        )
        return Subset(tensors, indices)

    def check(self, num_classes: int | None = None) -> None:
        """Read the photos to be attacked once, so that a broken one is found before the run and not in its middle.

        With `check = "ahead"` only some, spread over the data set, are read now, and all while the first are attacked.

        Args:
            num_classes: number of classes of the networks, for the wanted classes; None = these are not checked.

        Raises:
            DataError: a photo, mask or adversarial image cannot be used (with `on_error = "skip"` it is left out
                instead), photos of a batch differ in size, or a wanted class is unknown to the networks.
        """
        indices = self.indices()
        when = self._when_to_check(len(indices))
        if when == "none":
            return
        if when == "before" and len(indices) > MOST_BEFORE:
            rank_zero_info(f"{len(indices)} photos are read once before the run (--data.check=none: they are not)")
        chosen = indices if when == "before" else [indices[number] for number in spread(len(indices), SAMPLE)]
        check, scenes = self._photo_check(chosen, num_classes)
        check.all(scenes.__getitem__, len(chosen))

    def _when_to_check(self, photos: int) -> When:
        dataset = _given(self.dataset, "dataset", "predict")
        one_reader = not dataset.concurrent and not dataset.drawn  # the check would read beside the loader
        return when_to_check(self._check_when, photos, self._gallery is not None or one_reader)

    def _photo_check(self, indices: list[int], num_classes: int | None) -> tuple[PhotoCheck, Dataset[Item]]:
        survey, dataset = Survey(), _given(self.dataset, "dataset", "predict")
        pairs = None if self._gallery is None else AdversarialSurvey(self._gallery.root)
        check = PhotoCheck(dataset, survey, num_classes, self.target_masks, self.batch_size, self._gallery, pairs)
        return check, self._scenes(indices, survey, pairs)

    def _check_ahead(self, indices: list[int]) -> CheckAhead | None:
        """The check of this process' photos where not all are read before the run."""
        dataset = _given(self.dataset, "dataset", "predict")
        if self._when_to_check(len(self.indices())) != "ahead" or dataset.drawn or self.trainer is None:
            return None
        check, scenes = self._photo_check(indices, getattr(self.trainer.lightning_module, "num_classes", None))
        return CheckAhead(check, scenes.__getitem__, len(indices))

    def check_training(self, num_classes: int, learns: bool = True, progress: Progress = None) -> None:
        """Read every photo to learn from and for validation once, with the same care as `check` does.

        Args:
            num_classes: number of classes of the network.
            learns: whether `train` is used; else its photos are not read, only its classes compared.
            progress: called after each photo with `data.train` or `data.val`, the photos read, and their number.

        Raises:
            DataError: a data set is missing, a photo or mask cannot be used, photos of a batch differ in size, or the
                photos have no labels or other classes than the network.
        """
        for key, dataset in (("train", self.train), ("val", self.val)):
            if dataset is not None and len(dataset.classes or ()) != num_classes:
                raise DataError(
                    f"data.{key} has {len(dataset.classes) if dataset.classes else 'no'} classes, the network has "
                    f"{num_classes}; " + class_advice(len(dataset.classes or ()), num_classes)
                )
        for key, dataset in (("train", self.train if learns else None), ("val", self.val)):
            if dataset is None or dataset.drawn:
                continue
            sizes = survey_all(dataset, f"data.{key}", progress)
            if self.batch_size > 1 and (key == "val" or self.augment is None):  # that gives crops of one size
                empty = (self.fit(torch.zeros(3, *size, dtype=torch.uint8), None)[0] for size in sizes)
                one_size({(photo.shape[1], photo.shape[2]) for photo in empty})

    def first_to_learn(self) -> Tensor:
        """The image of the first photo to learn from, (3, H, W), as a step of training gets it."""
        with torch.random.fork_rng(devices=[]):
            image: Tensor = unpacked(self.train_dataloader().dataset[0])["image"]
        return image

    def predict_dataloader(self) -> DataLoader[Item]:
        waiting = [index for index in self.indices() if index not in self._finished]
        loader = self._shared(self._scenes(waiting), self._costs(waiting))
        self._ahead = self._check_ahead([waiting[number] for number in loader.sampler])
        return loader

    def _costs(self, indices: list[int]) -> list[float] | None:
        """What photos cost in comparison with each other; None where all cost the same, or it is not known."""
        one_size = self.fit.size is not None and self.fit.mode != "long_side"
        if one_size or self.batch_size > 1 or self._processes == 1 or self.trainer is None:
            return None
        # One process looks at the photos and tells the others, whose shares must fit together.
        return in_first_process(self.trainer, lambda: self._count_costs(indices))

    def _count_costs(self, indices: list[int]) -> list[float] | None:
        sizes = self._photo_sizes(indices)
        if sizes is None:
            return None
        shapes = [self.fit.shape(*size) if all(size) else size for size in sizes]
        count = getattr(self.trainer.lightning_module, "image_costs", None)  # type: ignore[union-attr]
        costs = count(shapes) if count else [float(height * width) for height, width in shapes]
        return costs if len({*costs}) > 1 else None

    def _photo_sizes(self, indices: list[int]) -> list[tuple[int, int]] | None:
        """Height and width of photos on disk; None where they are not known."""
        dataset = _given(self.dataset, "dataset", "predict")
        if not indices or dataset.photo_size(indices[0]) is None:
            return None
        threads = None if dataset.concurrent else 1
        return [*in_threads(lambda number: dataset.photo_size(indices[number]) or (0, 0), len(indices), threads)]

    @property
    def _processes(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _scenes(
        self,
        indices: list[int],
        survey: Survey | None = None,
        adversarial_survey: AdversarialSurvey | None = None,
    ) -> Dataset[Item]:
        scenes = Subset(self.scenes(survey, adversarial_survey).dataset, indices)
        return Lenient(scenes, indices) if self.on_error == "skip" else scenes

    def train_dataloader(self) -> DataLoader[Item]:
        train = _given(self.train, "train", "fit")
        if len(train) < self.batch_size:
            raise DataError(f"data.train has {len(train)} photos, fewer than data.batch_size={self.batch_size}")
        scenes = SceneTensors(train, self.fit, augment=self.augment, packed=self._on_cuda)
        return self._loader(scenes, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Item]:
        val = _given(self.val, "val", "fit, validate and test")
        if len(val) < self._processes:  # the others would wait for a process without a photo
            raise DataError(f"data.val has {len(val)} photos for {self._processes} processes; use fewer devices")
        return self._shared(SceneTensors(val, self.fit, packed=self._on_cuda))

    test_dataloader = val_dataloader

    @property
    def _on_cuda(self) -> bool:
        """Whether batches go to a GPU: they leave the workers packed, in pinned memory, and are unpacked there."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch as it is, unless a photo that comes later was found to be broken."""
        if self._ahead is not None:
            self._ahead.raise_found()
        return batch

    def teardown(self, stage: str) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Images as float32 in [0, 1] and masks as int64, on the device."""
        return unpacked(batch) if isinstance(batch, dict) else batch

    def _shared(self, scenes: Dataset[Item], costs: list[float] | None = None) -> DataLoader[Item]:
        """Batches of the photos of this process."""
        return self._loader(scenes, sampler=Share(scenes, costs, shuffle=False) if self._processes > 1 else None)

    def _loader(self, dataset: Dataset[Item], **options: Any) -> DataLoader[Item]:
        workers = self.num_workers
        if workers is None:
            workers = int(self._on_cuda)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            pin_memory=self._on_cuda,
            **options,
        )


def _given(dataset: SegmentationDataset | None, key: str, command: str) -> SegmentationDataset:
    if dataset is None:
        raise DataError(f"{command} needs data.{key}")
    check_classes(dataset.classes, f"data.{key}")
    if len(dataset) == 0:
        raise DataError(f"data.{key} has no photos")
    return dataset

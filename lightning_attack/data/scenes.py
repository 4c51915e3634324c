"""`SceneTensors`: the scenes of a data set as tensors of one size, and how they become batches."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from lightning_attack.common.pixels import from_levels
from lightning_attack.data.adversarial import Adversaries
from lightning_attack.data.augment import Augment
from lightning_attack.data.base import DataError, Scene, SegmentationDataset, check_mask, check_mask_size
from lightning_attack.data.files import read_mask
from lightning_attack.data.scene_form import one_kind, read_scene
from lightning_attack.data.survey import Survey
from lightning_attack.data.transforms import Fit

Item = dict[str, Any]


class SceneTensors(Dataset[Item]):
    """The scenes of a data set as tensors, brought to one size and checked.

    An item is `image` (3, H, W) float32 in [0, 1] on the 8-bit grid, `mask` (H, W) int64 with 255 = ignored (left out
    where the data set has no labels), `name`, `index` (position in the data set), `size` (height and width of the
    photo before `fit`) and `digest` (a hash of all of it); with the folders also `target_mask` (H, W) int64 and
    `region` (H, W) bool, with adversaries `adversarial` (3, H, W) float32 in [0, 1], whose own hash the digest then has
    after a `+`, and where these have a budget `adversarial_eps`.

    Args:
        dataset: the scenes.
        fit: the geometry.
        target_masks: folder of `<name>.png` with the wanted class of each pixel, 255 = none wanted.
        region_masks: folder of `<name>.png`, above 0 where the photo may change.
        augment: random geometry and colours instead of `fit`, for photos to learn from.
        adversaries: the adversarial image of each photo, made elsewhere.
        partners: adds the item `partners` (P, 3, H, W): other photos of the data set, brought to the size of this one.
        survey: sees each scene as it is read.
        packed: leave images and masks as the uint8 that they are; `unpacked` makes of them what is said above.

    Raises:
        DataError: photo or mask cannot be used.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        fit: Fit,
        target_masks: str | None = None,
        region_masks: str | None = None,
        augment: Augment | None = None,
        partners: Partners | None = None,
        adversaries: Adversaries | None = None,
        survey: Survey | None = None,
        packed: bool = False,
    ) -> None:
        self.packed = packed
        self.dataset, self.fit, self.augment, self.partners = dataset, fit, augment, partners
        self.adversaries, self.survey = adversaries, survey
        self.target_masks, self.region_masks = target_masks, region_masks

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        scene = read_scene(self.dataset, index)
        if self.survey is not None:
            self.survey.see(scene, index)
        image = photo = torch.from_numpy(scene.image).permute(2, 0, 1)
        mask = None if scene.mask is None else torch.from_numpy(scene.mask)
        if self.augment is not None and mask is not None:
            image, mask = self.augment(image, mask)
        else:
            image, mask = self.fit(image, mask)
        item: Item = {
            "image": image.contiguous(),
            "name": scene.name,
            "index": index,
            "size": torch.tensor(scene.image.shape[:2]),
        }
        digest = blake2b(f"{scene.name} {tuple(image.shape)}".encode() + image.numpy().tobytes(), digest_size=8)
        if mask is not None:
            item["mask"] = mask
            digest.update(mask.numpy().tobytes())
        if self.target_masks is not None:
            wanted = read_mask(Path(self.target_masks) / f"{scene.name}.png")
            self.check(Scene(scene.image, wanted, f"{self.target_masks}/{scene.name}"))
            item["target_mask"] = self.fit.mask(torch.from_numpy(wanted))
            digest.update(wanted.tobytes())
        if self.region_masks is not None:
            region = read_mask(Path(self.region_masks) / f"{scene.name}.png")
            check_mask_size(region, scene.image, f"{self.region_masks}/{scene.name}")
            item["region"] = self.fit.mask(torch.from_numpy(region), fill=0) > 0
            digest.update(region.tobytes())
        if self.adversaries is not None:
            item["adversarial"] = self.adversaries(scene.name, index, photo, image)
            if self.adversaries.eps is not None:
                item["adversarial_eps"] = torch.tensor(self.adversaries.eps)
        item["digest"] = digest.hexdigest()
        if self.adversaries is not None:
            # Apart, so that runs of the same photo know it whatever was made of it.
            theirs = blake2b(item["adversarial"].numpy().tobytes(), digest_size=8)
            item["digest"] += f"+{theirs.hexdigest()}"
        if self.partners is not None:
            own = Fit(tuple(item["image"].shape[-2:]), "stretch")
            item["partners"] = torch.stack([self._partner(other, own) for other in self.partners(index)])
        return item if self.packed else unpacked(item)

    def _partner(self, index: int, own: Fit) -> Tensor:
        image = torch.from_numpy(read_scene(self.dataset, index).image).permute(2, 0, 1)
        return own(self.fit(image, None)[0], None)[0].contiguous()

    def check(self, scene: Scene) -> None:
        """Raise `DataError` if the mask does not fit the photo or the classes."""
        if scene.mask is not None:
            check_mask(scene.mask, scene.image, len(self.dataset.classes or ()) or None, scene.name)


class Partners:
    """Chooses other photos for each photo of a run, by seeded permutations: no photo is its own partner.

    Args:
        indices: positions of the run's photos in the data set, 2 or more.
        seed: of the permutations.
        each: partners of a photo.

    Example:
        >>> partners = Partners([4, 7], seed=0)
        >>> partners(4), partners(7)
        ([7, 7, 7], [4, 4, 4])
    """

    def __init__(self, indices: Sequence[int], seed: int, each: int = 3) -> None:
        if len(indices) < 2:
            raise DataError(f"the attack mixes photos, but the run has {len(indices)}; give it 2 or more")
        generator = torch.Generator().manual_seed(seed)
        self._next: list[dict[int, int]] = []
        for _ in range(each):
            ring = [indices[place] for place in torch.randperm(len(indices), generator=generator).tolist()]
            self._next.append(dict(zip(ring, [*ring[1:], ring[0]], strict=True)))

    def __call__(self, index: int) -> list[int]:
        """Positions of the partners of the photo at `index`."""
        return [following[index] for following in self._next]


class Lenient(Dataset[Item]):
    """Scenes of which some cannot be used: their items have an `error` and their `index`, and nothing else."""

    def __init__(self, scenes: Dataset[Item], indices: list[int]) -> None:
        self.scenes, self.indices = scenes, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Item:
        try:
            return self.scenes[number]
        except (DataError, OSError) as error:
            return {"index": self.indices[number], "error": str(error)}


class Share(DistributedSampler[Item]):
    """Sampler of one process out of n: every n-th scene, none twice; a process may have none.

    Lightning's own sampler for validation repeats scenes until all processes have equally many, and its own sampler for
    predict needs at least one scene for each.

    Args:
        dataset: the scenes of all processes.
        costs: what each scene costs, such as its pixels. Scenes are then dealt out by falling cost, each to the process
            that has the least so far, so that no two processes differ by more than one scene costs.
        settings: of `DistributedSampler`.

    Example:
        >>> [list(Share(range(5), num_replicas=2, rank=rank, costs=[1, 9, 2, 4, 3])) for rank in range(2)]
        [[1, 0], [3, 4, 2]]
    """

    def __init__(self, dataset: Dataset[Item], costs: Sequence[float] | None = None, **settings: Any) -> None:
        super().__init__(dataset, **settings)
        self.mine: Sequence[int] = range(self.rank, len(dataset), self.num_replicas)  # type: ignore[arg-type]
        if costs is not None:
            self.mine = _dealt(costs, self.num_replicas)[self.rank]

    def __len__(self) -> int:
        return len(self.mine)

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        return iter(self.mine)


def _dealt(costs: Sequence[float], processes: int) -> list[list[int]]:
    """The scenes of each process: the costliest first, each to the process with the least to do."""
    shares: list[list[int]] = [[] for _ in range(processes)]
    waiting = [(0.0, rank) for rank in range(processes)]
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        load, rank = heapq.heappop(waiting)
        shares[rank].append(number)
        heapq.heappush(waiting, (load + costs[number], rank))
    return shares


def unpacked(item: Item) -> Item:
    """An item or batch with its uint8 images as float32 in [0, 1], and its uint8 masks as int64, on their device.

    Packed they are a quarter and an eighth as large on the way from a worker to a GPU.

    Example:
        >>> unpacked({"image": torch.tensor([51], dtype=torch.uint8), "name": ["a"]})
        {'image': tensor([0.2000]), 'name': ['a']}
    """
    item = dict(item)
    for key in ("image", "partners", "mask", "target_mask"):
        if key in item and item[key].dtype == torch.uint8:
            values = item[key]
            item[key] = values.long() if "mask" in key else from_levels(values.to(torch.float32))
    return item


def collate(items: list[Item]) -> Item:
    """Stack items of one size to a batch; those with an `error` go to its list `skipped`.

    Raises:
        DataError: the photos differ in size, or some have masks and others have none.
    """
    skipped = [(item["index"], f"photo {item['index']}", item["error"]) for item in items if "error" in item]
    items = [item for item in items if "error" not in item]
    one_size({tuple(item["image"].shape[-2:]) for item in items})
    one_kind({item["name"]: "mask" in item for item in items})
    batch: Item = {key: [item[key] for item in items] for key in items[0]} if items else {}
    for key, values in batch.items():
        if isinstance(values[0], Tensor):
            batch[key] = torch.stack(values)
    if items:
        batch["index"] = torch.tensor(batch["index"])
    if skipped:
        batch["skipped"] = skipped
    return batch


def one_size(sizes: set[tuple[int, int]]) -> None:
    """Raise `DataError` if photos of one batch differ in size."""
    if len(sizes) > 1:
        given = [f"{height}x{width}" for height, width in sorted(sizes)]
        raise DataError(
            f"photos differ in size ({', '.join(given[:3])}{', ...' if len(given) > 3 else ''}) and cannot share a "
            "batch; set data.size to bring them to one, or data.batch_size to 1"
        )

"""Batches: keys, types, ranges and geometry; which photos; what is refused before the run."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_attack.data import (
    DataError,
    ImageFolder,
    Scene,
    SegmentationDataModule,
    SegmentationDataset,
    SyntheticScenes,
)
from lightning_attack.data.scenes import Partners, Share
from lightning_attack.data.transforms import Fit

MODES = ("stretch", "crop", "pad")
NUMBERS = itertools.count()


class Scenes(SegmentationDataset):
    """Scenes from a list, with five classes or without labels."""

    def __init__(self, *scenes, labelled=True):
        self.scenes = scenes
        self.classes = tuple("abcde") if labelled else None

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


def scene(height, width, seed=0, labelled=True):
    rng = np.random.default_rng([seed, height, width])
    mask = rng.choice(np.array([1, 3, 4, 255], np.uint8), (height, width)) if labelled else None
    return Scene(rng.integers(0, 256, (height, width, 3), np.uint8), mask, f"scene{seed}_{next(NUMBERS)}")


def fitted(one, size, fit):
    """Photo (H, W, 3) in levels and mask of the only item."""
    item = SegmentationDataModule(Scenes(one), size=size, fit=fit).scenes()[0]
    return (item["image"] * 255).permute(1, 2, 0).numpy(), item["mask"].numpy()


def test_batch():
    data = SegmentationDataModule(SyntheticScenes(5, size=40), batch_size=2, size=(24, 32), num_workers=1)
    batches = list(data.predict_dataloader())
    assert [len(batch["image"]) for batch in batches] == [2, 2, 1]
    for batch in batches:
        count = len(batch["image"])
        assert set(batch) == {"image", "mask", "name", "index", "size", "digest"}
        assert batch["image"].shape == (count, 3, 24, 32)
        assert batch["image"].dtype == torch.float32
        assert batch["image"].min() >= 0
        assert batch["image"].max() <= 1
        assert batch["image"].std() > 0.05  # divided by 255 once, not twice
        assert batch["mask"].shape == (count, 24, 32)
        assert batch["mask"].dtype == batch["index"].dtype == batch["size"].dtype == torch.int64
        assert batch["name"] == [f"scene_{index:06d}" for index in batch["index"]]
        assert batch["size"].tolist() == [[40, 40]] * count  # of the photo, not of the batch
    assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 1, 2, 3, 4]


def test_batch_without_labels():
    data = SegmentationDataModule(Scenes(*[scene(8, 8, seed, labelled=False) for seed in range(2)], labelled=False))
    assert set(next(iter(data.predict_dataloader()))) == {"image", "name", "index", "size", "digest"}
    assert data.classes is None


def test_without_size_pixels_stay():
    one = scene(7, 9)
    image, mask = fitted(one, None, "stretch")
    assert np.array_equal(np.rint(image), one.image)
    assert np.array_equal(mask, one.mask)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(sizes, sizes, st.sampled_from(MODES))
@settings(max_examples=150, deadline=None)
def test_size_grid_and_classes_in_every_mode(before, after, mode):
    one = scene(*before)
    item = SegmentationDataModule(Scenes(one), size=after, fit=mode).scenes()[0]
    image, mask = item["image"], item["mask"]
    assert image.shape == (3, *after)
    assert mask.shape == after
    assert torch.equal(image, (image * 255).round() / 255)  # an attack's budget counts levels
    assert set(mask.unique().tolist()) <= set(np.unique(one.mask).tolist()) | ({255} if mode == "pad" else set())
    assert item["size"].tolist() == list(before)


def test_stretch_is_antialiased_bilinear():
    one = scene(30, 44)
    image, _ = fitted(one, (13, 57), "stretch")
    pixels = torch.from_numpy(one.image).permute(2, 0, 1)[None].double()
    expected = F.interpolate(pixels, size=(13, 57), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert np.abs(image - expected.numpy()).max() <= 0.51 + 0.5  # two passes, each rounded to 8 bits
    assert np.abs(image - expected.numpy()).mean() < 0.4


@given(sizes, st.integers(1, 16), st.sampled_from([None, 24, (9, 30)]))
@settings(max_examples=100, deadline=None)
def test_photos_of_several_sizes_are_padded_to_multiples(before, divisor, size):
    photos = Scenes(scene(*before))
    plain = SegmentationDataModule(photos, size=size, fit="long_side").scenes()[0]
    data = SegmentationDataModule(photos, size=size, fit="long_side", size_divisor=divisor)
    padded = data.scenes()[0]
    height, width = plain["mask"].shape
    rows, columns = padded["mask"].shape
    assert (rows, columns) == data.fit.shape(*before)
    assert rows % divisor == columns % divisor == 0
    assert 0 <= rows - height < divisor
    assert 0 <= columns - width < divisor
    for key, fill in (("image", 0), ("mask", 255)):
        assert torch.equal(padded[key][..., :height, :width], plain[key])
        padded[key][..., :height, :width] = fill
        assert (padded[key] == fill).all()


@pytest.mark.parametrize(("before", "after", "inner"), [((10, 20), 12, (6, 12)), ((33, 11), (20, 30), (20, 7))])
def test_pad_is_black_and_ignored_below_or_right(before, after, inner):
    rng = np.random.default_rng(0)
    one = Scene(rng.integers(100, 256, (*before, 3), np.uint8), rng.integers(0, 5, before).astype(np.uint8), "a")
    image, mask = fitted(one, after, "pad")
    outside = np.ones(image.shape[:2], bool)
    outside[: inner[0], : inner[1]] = False
    assert (image[outside] == 0).all()
    assert (mask[outside] == 255).all()
    assert image[~outside].min() > 90
    assert mask[~outside].max() < 5
    whole, whole_mask = fitted(one, inner, "stretch")  # the inner part is the whole photo
    assert np.array_equal(image[: inner[0], : inner[1]], whole)
    assert np.array_equal(mask[: inner[0], : inner[1]], whole_mask)


def test_crop_keeps_the_centre_and_the_aspect_ratio():
    one = scene(12, 20)
    image, mask = fitted(one, 12, "crop")  # no resizing is needed
    assert np.array_equal(np.rint(image), one.image[:, 4:16])
    assert np.array_equal(mask, one.mask[:, 4:16])
    tall = scene(40, 10)
    image, mask = fitted(tall, (6, 5), "crop")
    whole, whole_mask = fitted(tall, (20, 5), "stretch")
    assert np.array_equal(image, whole[7:13])
    assert np.array_equal(mask, whole_mask[7:13])


@pytest.mark.parametrize("mode", MODES)
def test_photo_and_mask_move_together(mode):
    # The photo shows its own mask; big squares, so that only their edges may differ.
    mask = np.kron(np.random.default_rng(0).integers(0, 5, (4, 6)), np.ones((16, 16))).astype(np.uint8)
    one = Scene(np.repeat(mask[..., None] * 50, 3, 2), mask, "a")
    image, fit_mask = fitted(one, (48, 40), mode)
    inside = fit_mask != 255
    assert (np.rint(image[..., 0] / 50) == fit_mask)[inside].mean() > 0.85


def test_every_and_limit_choose_and_keep_the_index():
    scenes = SyntheticScenes(11, size=16)

    def chosen(**arguments):
        batches = SegmentationDataModule(scenes, batch_size=2, **arguments).predict_dataloader()
        names = [(int(i), name) for batch in batches for i, name in zip(batch["index"], batch["name"], strict=True)]
        assert all(name == f"scene_{index:06d}" for index, name in names)
        return [index for index, _ in names]

    assert chosen() == list(range(11))
    assert chosen(limit=3) == [0, 1, 2]
    assert chosen(every=4) == [0, 4, 8]
    assert chosen(every=4, limit=2) == [0, 4]
    assert chosen(every=100, limit=100) == [0]


def test_train_and_val_take_all_photos():
    scenes = SyntheticScenes(7, size=16)
    data = SegmentationDataModule(train=scenes, val=scenes, batch_size=3, every=2, limit=1)
    torch.manual_seed(0)
    epochs = [torch.cat([batch["index"] for batch in data.train_dataloader()]).tolist() for _ in range(2)]
    assert [len(set(epoch)) for epoch in epochs] == [6, 6]  # the incomplete batch is left out
    assert epochs[0] != epochs[1]
    assert torch.cat([batch["index"] for batch in data.val_dataloader()]).tolist() == list(range(7))


def test_photos_of_different_sizes():
    scenes = Scenes(scene(8, 8), scene(8, 8), scene(8, 9), scene(10, 8))
    message = r"photos differ in size \(8x8, 8x9, 10x8\).*data.size.*data.batch_size to 1"
    with pytest.raises(DataError, match=message):
        SegmentationDataModule(scenes, batch_size=2).check()
    with pytest.raises(DataError, match="photos differ in size"):
        list(SegmentationDataModule(scenes, batch_size=4).predict_dataloader())
    for arguments in ({"batch_size": 1}, {"batch_size": 2, "size": 8}, {"batch_size": 2, "limit": 2}):
        data = SegmentationDataModule(scenes, **arguments)
        data.check()
        list(data.predict_dataloader())


@pytest.mark.parametrize("position", [0, 2, 3])
def test_check_finds_every_broken_scene(position):
    scenes = [scene(8, 8, seed) for seed in range(4)]
    scenes[position] = Scene(scenes[0].image, np.full((8, 8), 5, np.uint8), "broken")
    data = SegmentationDataModule(Scenes(*scenes))
    with pytest.raises(DataError, match=r"mask of 'broken' holds the class 5, but the classes are 0..4"):
        data.check()


def test_check_reads_only_what_is_attacked():
    broken = Scene(np.zeros((8, 8, 3), np.uint8), np.full((4, 8), 0, np.uint8), "broken")
    scenes = Scenes(scene(8, 8), broken, scene(8, 8))
    SegmentationDataModule(scenes, every=2).check()
    with pytest.raises(DataError, match="mask of 'broken' is 4x8, but its photo is 8x8"):
        SegmentationDataModule(scenes).check()


@pytest.mark.parametrize("photos", [0, 1, 3, 4, 11])
def test_processes_share_the_photos_and_some_may_have_none(photos):
    shares = [list(Share(range(photos), num_replicas=4, rank=rank, shuffle=False)) for rank in range(4)]
    assert sorted(index for share in shares for index in share) == list(range(photos))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [len(Share(range(photos), num_replicas=4, rank=rank)) for rank in range(4)] == list(map(len, shares))


@pytest.mark.parametrize("processes", [2, 4, 7])
def test_photos_of_their_own_sizes_are_dealt_out_by_what_they_cost(processes):
    costs = [int(value) for value in np.random.default_rng(0).lognormal(3, 1, 101)]
    ranks = range(processes)
    shares = [[*Share(range(101), costs, num_replicas=processes, rank=rank, shuffle=False)] for rank in ranks]
    assert sorted(index for share in shares for index in share) == list(range(101))
    loads = [sum(costs[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs[share[-1]] for share in shares)  # the last ones are cheap
    by_turns = [sum(costs[rank::processes]) for rank in ranks]
    assert max(by_turns) - min(by_turns) > 5 * (max(loads) - min(loads))


def test_sizes_are_known_where_photos_are_files(tmp_path):
    for name, size in (("a", (4, 3)), ("b", (2, 2))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_text("damaged")
    photos = ImageFolder(str(tmp_path))
    assert [photos.photo_size(index) for index in range(3)] == [(3, 4), (2, 2), (0, 0)]
    data = SegmentationDataModule(photos)
    assert data._costs([0, 1]) is None  # one process
    trainer = SimpleNamespace(world_size=2, is_global_zero=True, strategy=SimpleNamespace(broadcast=lambda one: one),
                              lightning_module=None)  # fmt: skip
    data.trainer = trainer
    assert data._costs([0, 1]) == [12, 4]
    trainer.lightning_module = SimpleNamespace(image_costs=lambda sizes: [sum(size) for size in sizes])
    assert data._costs([0, 1, 2]) == [7, 4, 0]
    trainer.is_global_zero = False
    assert data._costs([0, 1]) is None, "it is told"
    trainer.is_global_zero = True
    for fit, costs in (("stretch", None), ("long_side", [14, 16])):
        resized = SegmentationDataModule(photos, size=8, fit=fit)
        resized.trainer = trainer
        assert resized._costs([0, 1]) == costs


@pytest.mark.parametrize("count", [2, 3, 10])
def test_partners_are_others_by_permutations(count):
    indices = list(range(5, 5 + 3 * count, 3))
    for turn in zip(*[Partners(indices, seed=3)(index) for index in indices], strict=True):
        assert sorted(turn) == indices  # each photo is the partner of one
        assert all(partner != index for index, partner in zip(indices, turn, strict=True))
    if count == 10:
        assert Partners(indices, 3)(5) + Partners(indices, 3)(8) != Partners(indices, 4)(5) + Partners(indices, 4)(8)


def test_partners_come_in_the_size_of_their_photo():
    scenes = Scenes(scene(8, 8), scene(6, 10))
    data = SegmentationDataModule(scenes)
    data.set_partners(0)
    first, second = data.predict_dataloader()
    assert first["partners"].shape == (1, 3, 3, 8, 8)
    assert second["partners"].shape == (1, 3, 3, 6, 10)
    same = SegmentationDataModule(Scenes(scene(8, 8), scene(8, 8)), batch_size=2)
    same.set_partners(0)
    (batch,) = same.predict_dataloader()
    assert torch.equal(batch["partners"][:, 0], batch["image"].flip(0))
    single = SegmentationDataModule(Scenes(scene(8, 8)))
    single.set_partners(0)
    with pytest.raises(DataError, match="mixes photos, but the run has 1"):
        single.predict_dataloader()


def test_fewer_photos_for_validation_than_processes():
    data = SegmentationDataModule(val=SyntheticScenes(2, size=16))
    data.trainer = SimpleNamespace(world_size=3)
    with pytest.raises(DataError, match=r"data\.val has 2 photos for 3 processes; use fewer devices"):
        data.val_dataloader()


def test_finished_photos_are_not_read_again():
    data = SegmentationDataModule(Scenes(*[scene(8, 8) for _ in range(5)]), every=2)
    assert data.indices() == [0, 2, 4]
    data.skip([1, 2])
    assert [batch["index"].tolist() for batch in data.predict_dataloader()] == [[0], [4]]


def test_photos_that_cannot_be_used_are_left_out():
    broken = Scene(np.zeros((8, 8, 3), np.uint8), np.full((4, 8), 0, np.uint8), "broken")
    data = SegmentationDataModule(Scenes(scene(8, 8), broken, scene(8, 8), broken), batch_size=3)
    with pytest.raises(DataError, match="mask of 'broken'"):
        list(data.predict_dataloader())
    data.on_error = "skip"
    data.check()
    first, second = data.predict_dataloader()
    assert first["index"].tolist() == [0, 2]
    ((index, name, error),) = first["skipped"]
    assert (index, name) == (1, "photo 1")
    assert "mask of 'broken' is 4x8" in error
    assert set(second) == {"skipped"}


def test_missing_data_set_is_named():
    data = SegmentationDataModule()
    for loader, message in (
        (data.predict_dataloader, "predict needs data.dataset"),
        (data.train_dataloader, "fit needs data.train"),
        (data.val_dataloader, "fit, validate and test needs data.val"),
    ):
        with pytest.raises(DataError, match=message):
            loader()
    with pytest.raises(DataError, match=r"data.train has no photos"):
        SegmentationDataModule(train=Scenes()).train_dataloader()


@pytest.mark.parametrize(
    ("device", "given", "workers"), [("cpu", None, 0), ("cuda", None, 1), ("cuda", 0, 0), ("cpu", 3, 3)]
)
def test_photos_are_read_beside_a_gpu(device, given, workers):
    data = SegmentationDataModule(SyntheticScenes(2, size=16), num_workers=given)
    data.trainer = SimpleNamespace(world_size=1, strategy=SimpleNamespace(root_device=torch.device(device)))
    assert data.predict_dataloader().num_workers == workers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"every": 0}, "every=0"),
        ({"limit": 0}, "limit=0"),
        ({"size": 0}, "size=0"),
        ({"size": (8, -1)}, "size"),
        ({"fit": "squash"}, "fit='squash': must be one of stretch, crop, pad"),
        ({"size_divisor": 0}, "size_divisor=0: must be 1 or more"),
        ({"size_divisor": 32, "size": 8, "fit": "pad"}, "size=8 with fit='pad' makes all of them alike"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentationDataModule(SyntheticScenes(1, size=16), **arguments)


@pytest.mark.parametrize(("size", "mode"), [((8,), "stretch"), ((8, 8, 8), "pad")])
def test_size_has_two_numbers(size, mode):
    with pytest.raises(ValueError, match="height and width"):
        Fit(size, mode)


@pytest.mark.parametrize("mode", MODES)
def test_size_may_be_a_list(mode):
    assert fitted(scene(9, 7), [5, 6], mode)[1].shape == (5, 6)  # as YAML gives it


def test_batches_for_a_gpu_are_packed_and_unpacked_to_the_same_numbers():
    def module():
        made = SegmentationDataModule(
            SyntheticScenes(5, size=32), train=SyntheticScenes(4), val=SyntheticScenes(4), batch_size=2
        )
        made.set_partners(3)
        return made

    plain, gpu = module(), module()
    gpu.trainer = SimpleNamespace(
        world_size=1, strategy=SimpleNamespace(root_device=torch.device("cuda", 0)), training=False
    )
    loader = gpu.predict_dataloader()
    assert (loader.num_workers, loader.pin_memory) == (1, True)
    for packed, expected in zip(loader, plain.predict_dataloader(), strict=True):
        assert {key: packed[key].dtype for key in ("image", "mask", "partners")} == dict.fromkeys(
            ("image", "mask", "partners"), torch.uint8
        )
        found = gpu.on_after_batch_transfer(packed, 0)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            same = torch.equal(found[key], values) if isinstance(values, torch.Tensor) else found[key] == values
            assert same, key
            assert not isinstance(values, torch.Tensor) or found[key].dtype == values.dtype
    assert next(iter(gpu.val_dataloader()))["image"].dtype == torch.uint8
    assert gpu.first_to_learn().dtype == torch.float32

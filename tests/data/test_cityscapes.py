"""Cityscapes: every label id, masks of train ids, half resolution."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_attack.data import Cityscapes, DataError, SegmentationDataModule
from tests.data.trees import LAYOUTS, cityscapes, photo, png, values

LAYOUT = LAYOUTS["cityscapes"]
TABLE = [
    (0, 255, "unlabeled"),
    (1, 255, "ego vehicle"),
    (2, 255, "rectification border"),
    (3, 255, "out of roi"),
    (4, 255, "static"),
    (5, 255, "dynamic"),
    (6, 255, "ground"),
    (7, 0, "road"),
    (8, 1, "sidewalk"),
    (9, 255, "parking"),
    (10, 255, "rail track"),
    (11, 2, "building"),
    (12, 3, "wall"),
    (13, 4, "fence"),
    (14, 255, "guard rail"),
    (15, 255, "bridge"),
    (16, 255, "tunnel"),
    (17, 5, "pole"),
    (18, 255, "polegroup"),
    (19, 6, "traffic light"),
    (20, 7, "traffic sign"),
    (21, 8, "vegetation"),
    (22, 9, "terrain"),
    (23, 10, "sky"),
    (24, 11, "person"),
    (25, 12, "rider"),
    (26, 13, "car"),
    (27, 14, "truck"),
    (28, 15, "bus"),
    (29, 255, "caravan"),
    (30, 255, "trailer"),
    (31, 16, "train"),
    (32, 17, "motorcycle"),
    (33, 18, "bicycle"),
    (255, 255, "license plate, -1"),
]
"""Label id, train id and name, as the data set's authors list them."""


def scene(root, labels, scale=1.0, pixels=None):
    """The only scene of a tree with these label ids."""
    labels = np.asarray(labels, np.uint8)
    png(root / LAYOUT.mask, labels)
    if pixels is None:
        photo(root / LAYOUT.photo, size=labels.shape)
    else:
        (root / LAYOUT.photo).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / LAYOUT.photo)
    return Cityscapes(str(root), scale=scale)[0]


def test_there_are_34_ids_and_the_licence_plate():
    assert [row[0] for row in TABLE] == [*range(34), 255]
    assert sorted(row[1] for row in TABLE if row[1] != 255) == list(range(19))


@pytest.mark.parametrize(("label", "train_id", "name"), TABLE)
def test_label_ids_become_train_ids(tmp_path, label, train_id, name):
    assert scene(tmp_path, [[label, label]]).mask.tolist() == [[train_id, train_id]]
    assert train_id == 255 or Cityscapes.classes[train_id] == name


def test_all_ids_in_one_mask(tmp_path):
    labels, train_ids, _ = zip(*TABLE, strict=True)
    assert scene(tmp_path, [labels]).mask.tolist() == [list(train_ids)]


@pytest.mark.parametrize("label", [34, 100, 254])
def test_no_other_id_is_known(tmp_path, label):
    with pytest.raises(DataError, match=f"holds the value {label}; expected Cityscapes' label ids, 0..33"):
        scene(tmp_path, [[label, 7]])


def test_masks_of_train_ids_where_label_ids_are_missing(tmp_path):
    cityscapes(tmp_path)
    labels = tmp_path / LAYOUT.mask
    train = labels.with_name(labels.name.replace("labelIds", "labelTrainIds"))
    png(train, values(0, 18, 255, 7))
    assert np.array_equal(Cityscapes(str(tmp_path))[0].mask, values(*LAYOUT.labels))  # label ids come first
    labels.unlink()
    data = Cityscapes(str(tmp_path))
    assert np.array_equal(data[0].mask, values(0, 18, 255, 7))
    assert np.array_equal(data[1].mask, values(*LAYOUT.labels))
    png(train, values(19))
    with pytest.raises(
        DataError, match=r"labelTrainIds.png' holds the value 19; expected Cityscapes' train ids, 0..18"
    ):
        data[0]


def test_half_resolution(tmp_path):
    labels = np.kron([[7, 8, 33], [0, 26, 7]], np.ones((2, 2)))  # each pixel of the half is one square of the whole
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    half = scene(tmp_path, labels, 0.5, pixels)
    assert Cityscapes(str(tmp_path), scale=0.5).photo_size(0) == half.image.shape[:2] == (2, 3)
    assert half.mask.tolist() == [[0, 1, 18], [255, 13, 0]]
    assert half.image.dtype == np.uint8
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    expected = F.interpolate(whole, size=(2, 3), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(half.image - expected).max() <= 1.01  # two passes, each rounded to 8 bits


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_no_scale_invents_a_class(tmp_path_factory, height, width, scale):
    root = tmp_path_factory.getbasetemp() / "scaled"
    labels = np.random.default_rng([height, width]).choice(np.array([7, 21, 33, 2], np.uint8), (height, width))
    found = scene(root, labels, scale)
    # The nearest pixel: the one whose square holds the centre of the new one.
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(found.mask.shape, labels.shape, strict=True)
    )
    whole = scene(root, labels).mask
    assert found.mask.shape == (max(1, round(height * scale)), max(1, round(width * scale)))
    assert found.image.shape[:2] == found.mask.shape
    assert set(np.unique(found.mask)) <= set(np.unique(whole))
    assert (found.mask == whole[np.ix_(rows, columns)]).mean() > 0.8  # but for ties of rounding


def test_photo_and_mask_shrink_together(tmp_path):
    choice = np.kron(np.random.default_rng(0).integers(0, 3, (5, 6)), np.ones((8, 8), int))
    shown = 255 * np.eye(3, dtype=np.uint8)[choice]  # each class has a colour of its own
    small = scene(tmp_path, np.array([7, 26, 33])[choice], 0.5, shown)
    assert small.mask.shape == (20, 24)
    assert np.array_equal(np.array([0, 13, 18])[small.image.argmax(2)], small.mask)


def test_size_is_checked_before_scaling(tmp_path):
    cityscapes(tmp_path)
    png(tmp_path / LAYOUT.mask, values(7, size=(6, 4)))
    with pytest.raises(DataError, match="is 6x4, but its photo is 4x6"):
        Cityscapes(str(tmp_path), scale=0.5)[0]


@pytest.mark.parametrize("scale", [0, -0.5, 1.5, float("nan")])
def test_scale_is_checked(tmp_path, scale):
    cityscapes(tmp_path)
    with pytest.raises(ValueError, match=r"scale=.*: must be above 0 and not above 1"):
        Cityscapes(str(tmp_path), scale=scale)


def test_scaled_scenes_make_batches(tmp_path):
    cityscapes(tmp_path)
    data = SegmentationDataModule(Cityscapes(str(tmp_path), scale=0.5), batch_size=2)
    data.check()
    (batch,) = data.predict_dataloader()
    assert batch["image"].shape == (2, 3, 2, 3)
    assert batch["mask"].shape == (2, 2, 3)
    assert batch["name"] == ["lindau/lindau_000000_000019", "munster/munster_000000_000019"]

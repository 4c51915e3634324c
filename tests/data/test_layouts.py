"""Every data set with a folder tree of its own: the same contract, and the same answers where something is wrong."""

import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_attack.data import DataError, SegmentationDataModule
from tests.data.trees import LAYOUTS, photo, values


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    """A layout whose tree lies in `tmp_path / "root"`."""
    LAYOUTS[request.param].make(tmp_path / "root")
    return LAYOUTS[request.param]


@pytest.fixture
def root(layout, tmp_path):
    return tmp_path / "root"


def test_photos_labels_and_names(layout, root):
    data = layout(root)
    assert len(data) == layout.scenes
    assert len(data.classes) == len(set(data.classes)) == layout.classes
    scene = data[0]
    assert scene.name == layout.name
    assert scene.mask.dtype == np.uint8
    assert np.array_equal(scene.mask, values(*layout.labels))
    with Image.open(root / layout.photo) as image:
        assert np.array_equal(scene.image, np.array(image))
    names = [data[index].name for index in range(len(data))]
    assert len(set(names)) == len(names)
    SegmentationDataModule(data).check()


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "sbd"])
def test_palette_and_grey_maps_give_the_same_labels(kind, tmp_path):
    layout = LAYOUTS[kind]
    for palette in (True, False):
        layout.make(tmp_path / str(palette), palette=palette)
        with Image.open(tmp_path / str(palette) / layout.mask) as image:
            assert image.mode == ("P" if palette else "L")
    coloured, grey = layout(tmp_path / "True"), layout(tmp_path / "False")
    for index in range(layout.scenes):
        assert np.array_equal(coloured[index].mask, grey[index].mask)
        assert np.array_equal(coloured[index].mask, values(*layout.labels))


def test_wrong_root_shows_the_tree(layout, tmp_path):
    (tmp_path / "empty").mkdir()
    for wrong in ("nowhere", "empty"):
        with pytest.raises(DataError, match=layout.root) as error:
            layout(tmp_path / wrong)
        assert str(error.value).startswith("no ")
        assert str(tmp_path / wrong) in str(error.value)
        assert "\n" not in str(error.value)  # the command line answers in two lines at most


def test_missing_split_names_those_that_are_there(layout, root):
    with pytest.raises(DataError, match=r"no split 'trian' in '.*'; there are: \w+, \w+"):
        layout(root, split="trian")
    with pytest.raises(DataError, match="no split ''"):
        layout(root, split="")


def test_photo_without_mask(layout, root):
    (root / layout.mask).unlink()
    expected = (
        r"photos have no mask; the first is '.*', whose mask should be '.*{0}'; unpack|mask '.*{0}' cannot be read"
    )
    with pytest.raises(DataError, match=expected.format(os.path.basename(layout.mask))):
        SegmentationDataModule(layout(root)).check()


def test_split_without_photos(layout, root):
    # Cityscapes has a folder for each city inside that of the split.
    folder = (root / layout.photo).parents[layout.name.count("/")]
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(DataError, match=r"no photos '.*'; unpack|photo '.*' cannot be read"):
        SegmentationDataModule(layout(root)).check()


def test_mask_of_another_size(layout, root):
    layout.save(root / layout.mask, values(layout.labels[1], size=(6, 4)))
    with pytest.raises(DataError, match=f"mask of '{layout.name}' is 6x4, but its photo is 4x6"):
        SegmentationDataModule(layout(root)).check()


def test_foreign_class(layout, root):
    value, message = layout.foreign
    layout.save(root / layout.mask, values(1, value))
    with pytest.raises(DataError, match=message) as error:
        SegmentationDataModule(layout(root)).check()
    assert layout.mask in str(error.value) or f"'{layout.name}'" in str(error.value)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
@pytest.mark.parametrize("kind", ["photo", "mask"])
def test_unreadable_file(layout, root, kind, damage):
    path = root / getattr(layout, kind)
    path.write_bytes(path.read_bytes()[:-60] if damage is None else damage)
    with pytest.raises(DataError, match=f"{kind} '.*{path.name}' cannot be read"):
        SegmentationDataModule(layout(root)).check()


def test_colours_in_place_of_labels(layout, root):
    if layout.mask.endswith(".png"):
        photo(root / layout.mask)
        with pytest.raises(DataError, match="has mode RGB; expected one class number per pixel"):
            SegmentationDataModule(layout(root)).check()


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(("stretch", "crop", "pad")),
    scale=st.floats(0.05, 1),
)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "sbd"])
def test_resizing_invents_no_class(tmp_path_factory, kind, size, mode, scale):
    layout = LAYOUTS[kind]
    root = tmp_path_factory.getbasetemp() / f"resize_{kind}"
    if not root.exists():
        layout.make(root)
    arguments = {"scale": scale} if kind == "cityscapes" else {}
    item = SegmentationDataModule(layout(root, **arguments), size=size, fit=mode).scenes()[0]
    assert item["mask"].shape == size
    assert set(item["mask"].unique().tolist()) <= {*layout.labels} | ({255} if mode == "pad" else set())

"""What data sets of one's own may give, and how each mistake is answered before anything is attacked."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from lightning_attack.attacks import NoAttack
from lightning_attack.callbacks import TransferMetrics
from lightning_attack.data import DataError, Scene, SegmentationDataModule, SegmentationDataset
from lightning_attack.data.scene_form import check_classes, read_scene
from lightning_attack.data.scenes import SceneTensors
from lightning_attack.data.transforms import Fit
from lightning_attack.predict.batches import BatchError
from lightning_attack.predict.module import AttackModule

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
MASK = np.tile(np.arange(2, dtype=np.uint8), 12).reshape(4, 6)


class Own(SegmentationDataset):
    """Scenes that are given in a list."""

    def __init__(self, *scenes, classes=("a", "b")):
        self.scenes, self.classes = scenes, classes

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


@pytest.mark.parametrize(
    ("scene", "says"),
    [
        ((IMAGE, MASK), "is a tuple; expected Scene"),
        (Scene(IMAGE[..., 0], MASK, "s"), r"is \(4, 6\) uint8; .*\nrepeat a grey one"),
        (Scene(IMAGE.transpose(2, 0, 1), MASK, "s"), r"colours come last: image.transpose\(1, 2, 0\)"),
        (Scene(np.concatenate([IMAGE, IMAGE], 2), MASK, "s"), "without alpha"),
        (Scene(IMAGE.astype(np.int64), MASK, "s"), r"int64; expected .*\nsuch as image.astype\(np.uint8\)"),
        (
            Scene(IMAGE.astype(np.uint16) * 256, MASK, "s"),
            r"\nits brightest value is 18176: scale it .* / 65535",
        ),
        (Scene(IMAGE.astype(np.float32), MASK, "s"), r"8-bit levels, or floats in \[0, 1\]"),
        (Scene(torch.from_numpy(IMAGE), MASK, "s"), "is a Tensor"),
        (Scene(Image.fromarray(IMAGE), MASK, "s"), "is a Image"),
        (Scene(IMAGE, MASK.astype(np.float32), "s"), "one class per pixel"),
        (Scene(IMAGE, MASK[..., None], "s"), "one class per pixel"),
        (Scene(IMAGE, MASK, 7), "named 7; expected text"),
        *((Scene(IMAGE, MASK, name), "cannot be saved under that name") for name in ("", "./s", "s/", "../s", "/s")),
    ],
)
def test_scenes_of_another_form(scene, says):
    with pytest.raises(DataError, match=says):
        read_scene(Own(scene), 0)


def test_views_of_arrays_and_floats_are_taken():
    found = read_scene(Own(Scene(IMAGE[:, ::-1, ::-1], MASK[::-1] > 0, "s")), 0)
    assert torch.from_numpy(found.image)[0, 0].tolist() == IMAGE[0, -1, ::-1].tolist()
    assert read_scene(Own(Scene(IMAGE / 255, None, "s")), 0).mask is None


@pytest.mark.parametrize("kind", ["?", "b", "<i2", ">i4", "H", "Q", "q"])
def test_masks_of_every_integer_type_are_padded_with_what_is_ignored(kind):
    mask = SceneTensors(Own(Scene(IMAGE, MASK.astype(kind), "s")), Fit(None, divisor=5))[0]["mask"]
    assert mask.dtype == torch.int64
    assert mask[:4, :6].tolist() == MASK.tolist()
    assert (mask[4:] == 255).all()
    assert (mask[:, 6:] == 255).all()


def test_hashes_of_photos_do_not_depend_on_versions():
    """Earlier ones hashed masks in the types that they came in; runs with their hashes go on."""
    for kind, expected in (("B", "f2d342c5e2f76a45"), ("?", "f2d342c5e2f76a45"), ("q", "1b4f2a052d58146c")):
        assert SceneTensors(Own(Scene(IMAGE, MASK.astype(kind), "s")), Fit(None))[0]["digest"] == expected


@pytest.mark.parametrize("kind", ["<f2", "f", "d", ">f8"])
def test_images_of_every_floating_type_become_those_of_networks(kind):
    images = (IMAGE, (IMAGE / 255).astype(kind))
    expected, found = (SceneTensors(Own(Scene(image, None, "s")), Fit(None))[0]["image"] for image in images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= (1e-3 if kind == "<f2" else 0)


def test_masks_need_classes_and_classes_names():
    with pytest.raises(DataError, match="'s' has a mask, but Own has no classes"):
        read_scene(Own(Scene(IMAGE, MASK, "s"), classes=None), 0)
    with pytest.raises(DataError, match=r"data\.dataset has 256 classes; .* at most 255 can be told apart"):
        check_classes([*map(str, range(256))], "data.dataset")
    check_classes([*map(str, range(255))], "data.dataset")
    for classes in ("ab", (0, 1), ("a", "a"), 2):
        with pytest.raises(DataError, match=r"data\.dataset: classes"):
            check_classes(classes, "data.dataset")


MIXED = Own(Scene(IMAGE, MASK, "s"), Scene(IMAGE, None, "t"))


@pytest.mark.parametrize("check", ["before", "none"])
@pytest.mark.parametrize("size", [1, 2])
def test_some_masks_missing(check, size, tmp_path):
    """Their labels would be the source's predictions, between real ones, and nobody would notice."""
    data = SegmentationDataModule(MIXED, batch_size=size, check=check)
    with pytest.raises((DataError, BatchError), match=r"a mask and .* none|a 'mask' and others have none"):
        data.check(2) if check == "before" else predict(data, tmp_path)


def test_some_masks_missing_in_a_loader_of_ones_own(tmp_path):
    image = torch.rand(3, 4, 6)
    with pytest.raises(BatchError, match="some batches have a 'mask' and others have none"):
        predict(DataLoader([{"image": image, "mask": torch.zeros(4, 6).long()}, {"image": image}]), tmp_path)


def predict(data, folder):
    module = AttackModule(nn.Conv2d(3, 2, 1), NoAttack())
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, inference_mode=False,
                      callbacks=[TransferMetrics(str(folder), table=False)])  # fmt: skip
    trainer.predict(module, data, return_predictions=False)

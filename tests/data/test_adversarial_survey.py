"""Images made elsewhere that belong to their photos in another way than they are given."""

import warnings

import numpy as np
import pytest
from PIL import Image

from lightning_attack.data import DataError, ImageFolder, SegmentationDataModule, SyntheticScenes

COUNT = 6


@pytest.fixture
def pairs(tmp_path):
    """Photos, and the same with every value moved by 8 levels."""
    rng = np.random.default_rng(0)
    photos = [SyntheticScenes(COUNT, size=48)[index].image for index in range(COUNT)]
    (tmp_path / "photos").mkdir()
    for index, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"p{index}.png")
    return [np.clip(photo + rng.choice([-8, 8], photo.shape), 0, 255).astype(np.uint8) for photo in photos]


def check(tmp_path, images, floating=False, **settings):
    stack = np.stack(images)
    np.save(tmp_path / "adv.npy", stack.transpose(0, 3, 1, 2) / np.float32(255) if floating else stack)
    data = ImageFolder(str(tmp_path / "photos"))
    SegmentationDataModule(data, adversarial_root=str(tmp_path / "adv.npy"), **settings).check()


@pytest.mark.parametrize("floating", [True, False])
@pytest.mark.parametrize("settings", [{}, {"adversarial_eps": "8/255"}, {"size": 30, "fit": "crop"}])
def test_images_of_an_attack_are_as_they_should_be(tmp_path, pairs, floating, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(tmp_path, pairs, floating, **settings)


@pytest.mark.parametrize("settings", [{}, {"adversarial_eps": "8/255"}])
@pytest.mark.parametrize("floating", [True, False])
def test_red_and_blue_exchanged(tmp_path, pairs, floating, settings):
    with pytest.raises(
        DataError, match=r"adversarial images in '.*' fit their photos better with red and blue exch.*BGR"
    ):
        check(tmp_path, [image[..., ::-1] for image in pairs], floating, **settings)


@pytest.mark.parametrize("settings", [{}, {"adversarial_eps": "8/255"}])
def test_images_in_another_order(tmp_path, pairs, settings):
    message = r"6 of 6 adversarial images in '.*' fit other photos better than their own; that of 'p0' fits 'p1'.*order"
    with pytest.raises(DataError, match=message):
        check(tmp_path, [*pairs[1:], pairs[0]], **settings)


def test_two_images_exchanged(tmp_path, pairs):
    with pytest.warns(UserWarning, match="2 of 6 adversarial images .* that of 'p1' fits 'p2'"):
        check(tmp_path, [pairs[0], pairs[2], pairs[1], *pairs[3:]])


def test_a_patch_is_said_and_allowed(tmp_path, pairs):
    pairs[3] = pairs[3].copy()
    pairs[3][:6, :6] ^= 255
    with pytest.warns(
        UserWarning, match=r"1 of 6 adversarial images are more than 64/255 .* farthest 'p3' with \d+/255"
    ):
        check(tmp_path, pairs)

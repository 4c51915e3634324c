"""Random geometry of photo and mask together."""

import pytest
import torch

from lightning_attack.data import Augment


def chessboard(height, width):
    """A photo whose brightness says the class of its mask."""
    mask = (torch.arange(height)[:, None] // 8 + torch.arange(width) // 8) % 2
    return (mask * 200 + 20).to(torch.uint8).expand(3, -1, -1).contiguous(), mask.to(torch.uint8)


def test_rotation_turns_both_and_stays_in_its_range():
    """A photo of two halves, turned around its middle: the border between them shows the angle."""
    mask = (torch.arange(64) < 32).to(torch.uint8).expand(64, 64).contiguous()
    image = (mask * 200 + 20).expand(3, -1, -1).contiguous()
    torch.manual_seed(0)
    angles = []
    for _ in range(20):
        turned, labels = Augment(64, (1, 1), flip=0.0, rotate=20)(image, mask)
        assert set(labels.unique().tolist()) <= {0, 1, 255}, "a class was invented"
        known = labels != 255
        assert ((turned[0] > 120) == (labels == 1))[known].double().mean() > 0.97
        border = (labels[8:56] == 1).sum(1) + (labels[8:56, :16] == 255).sum(1)
        angles.append(float(torch.atan((border[-1] - border[0]) / 47.0).rad2deg()))
    assert max(angles) < 22
    assert min(angles) > -22
    assert max(angles) > 8
    assert min(angles) < -8


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_photo_and_mask_move_together(scale):
    image, mask = chessboard(60, 90)
    torch.manual_seed(0)
    shares = []
    for _ in range(20):
        crop, labels = Augment((48, 40), scale=scale)(image, mask)
        assert crop.shape == (3, 48, 40)
        assert crop.dtype == labels.dtype == torch.uint8
        assert set(labels.unique().tolist()) <= {0, 1, 255}, "a class was invented"
        known = labels != 255
        assert (crop[:, ~known] == 0).all(), "outside of the photo it is black"
        agree = (crop[0] > 120) == (labels == 1)
        assert agree[known].double().mean() > (0.999 if scale == (1.0, 1.0) else 0.8)  # edges blur
        shares.append(float(known.double().mean()))
    # A photo of half the size does not fill the crop; one of its own size or more does.
    assert (min(shares) < 1) == (scale[0] < 1)
    assert max(shares) == 1


def test_flip():
    image, mask = chessboard(32, 32)
    assert torch.equal(Augment(32, (1, 1), flip=1.0)(image, mask)[1], mask.flip(-1))
    assert torch.equal(Augment(32, (1, 1), flip=0.0)(image, mask)[1], mask)


def test_colours_change_and_labels_do_not():
    image, mask = chessboard(32, 32)
    changed, labels = Augment(32, (1, 1), flip=0.0, jitter=0.5)(image, mask)
    assert torch.equal(labels, mask)
    assert not torch.equal(changed, image)
    assert torch.equal(Augment(32, (1, 1), flip=0.0)(image, mask)[0], image)


@pytest.mark.parametrize(
    "settings",
    [{"crop": 0}, {"crop": 8, "scale": (0, 1)}, {"crop": 8, "scale": (2, 1)}, {"crop": 8, "flip": 1.5},
     {"crop": 8, "jitter": -1}, {"crop": 8, "rotate": -1}, {"crop": 8, "rotate": 200}],
)  # fmt: skip
def test_bad_settings(settings):
    with pytest.raises(ValueError, match="must be 1 or more"):
        Augment(**settings)

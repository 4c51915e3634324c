import pytest
import torch

from lightning_attack.attacks import BlockStretch, Draws
from lightning_attack.attacks.input_transforms.stretch import Stretch
from tests.attacks.toys import scene


@pytest.mark.parametrize(("height", "width", "blocks"), [(32, 24, 3), (7, 2, 4), (1, 1, 3)])
def test_every_pixel_keeps_its_block(height, width, blocks):
    """Labels of blocks, shown and moved back, are the labels of blocks; sizes in the view add up to the side."""
    images = torch.rand(2, 3, height, width)
    transform, draws = BlockStretch(blocks, strength=1.0), Draws([3, 4])
    for _ in range(5):
        rows, columns = transform.stretches(height, Draws([3]), "down"), transform.stretches(width, Draws([3]), "right")
        for length, (stretch,) in ((height, rows), (width, columns)):
            assert sum(stretch.image) == sum(stretch.view) == length
            assert min(*stretch.image, *stretch.view) >= 1
            assert len(stretch.image) == len(stretch.view) == min(blocks, length)
            numbers = torch.arange(len(stretch.image)).repeat_interleave(torch.tensor(stretch.image)).float()
            line = numbers.expand(1, 1, 1, -1)
            shown = stretch.show(line, -1)
            # Blocks are resized one by one, so none bleeds into its neighbour.
            assert shown[0, 0, 0].tolist() == [n for n, size in enumerate(stretch.view) for _ in range(size)]
            assert torch.equal(stretch.back(shown, -1), line)
        (view,) = transform(images, draws)
        assert view.images.shape == images.shape
        ones = torch.ones(2, 1, height, width)
        assert torch.equal(view.undo(ones), ones)


def test_a_stretch_by_hand():
    """Two pixels are shown as four, half and half; linear between them, as of `resize`."""
    stretch = Stretch(image=[2, 4], view=[4, 2])
    line = torch.tensor([0.0, 4.0, 1.0, 3.0, 5.0, 7.0]).view(1, 1, 1, 6)
    assert stretch.show(line, -1).flatten().tolist() == [0.0, 1.0, 3.0, 4.0, 2.0, 6.0]
    assert stretch.show(line.mT, -2).flatten().tolist() == [0.0, 1.0, 3.0, 4.0, 2.0, 6.0]


def test_no_strength_is_the_image_itself():
    images, _ = scene(2)
    (view,) = BlockStretch(4, strength=0.0)(images, Draws([1, 2]))
    assert torch.equal(view.images, images)
    assert torch.equal(view.undo(images), images)


@pytest.mark.parametrize("settings", [{"strength": -0.1}, {"strength": 1.1}, {"blocks": 0}])
def test_refusals(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        BlockStretch(**settings)

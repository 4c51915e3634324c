"""Views of the whole image moved, and views without a cell: where each pixel is shown, and that it comes back."""

import pytest
import torch

from lightning_attack.attacks import DiverseSizes, Draws, GridShifts, MaskedBlocks, MovedCopies
from tests.attacks.toys import scene


def test_shifts_lie_on_a_grid():
    images, labels = scene(2, 8, 12)[0], torch.arange(96.0).double().view(1, 1, 8, 12).expand(2, -1, -1, -1)
    shown = list(GridShifts(grid=3, reach=0.5)(images, Draws([0, 1])))
    assert len(shown) == 9
    for view, (down, right) in zip(shown, [(d, r) for d in (2, 0, -2) for r in (3, 0, -3)], strict=True):
        expected = torch.zeros_like(images)
        for y in range(8):
            for x in range(12):
                if 0 <= y + down < 8 and 0 <= x + right < 12:
                    expected[:, :, y, x] = images[:, :, y + down, x + right]
        assert torch.allclose(view.images, expected, atol=1e-12)
        back = view.undo(torch.where(view.images[:, :1] > 0, torch.roll(labels, (-down, -right), (2, 3)), 0.0))
        known = view.undo(torch.ones_like(labels)) > 0.99
        assert torch.allclose(back[known], labels[known], atol=1e-9)
        assert int(known.sum()) == 2 * (8 - abs(down)) * (12 - abs(right))


def test_sizes_with_larger_and_larger_margins():
    ones = torch.ones(1, 1, 60, 40)
    for seed in range(5):
        for rate, view in zip((1.2, 2.0), DiverseSizes([1.2, 2.0])(ones, Draws([seed])), strict=True):
            rows, columns = (int((view.images[0, 0].amax(dim) > 0).sum()) for dim in (1, 0))
            assert int(60 / rate) <= rows < 60
            assert int(40 / rate) <= columns < 40
            assert torch.allclose(view.undo(view.images), ones)


def test_copies_are_moved_in_all_ways_and_come_back():
    images = scene(40, 6, 9)[0] + 0.1
    itself, copy = MovedCopies(copies=1, scale=0.5)(images, Draws(range(40)))
    assert torch.equal(itself.images, images)
    kinds = [int(10 * number) for number in Draws(range(40)).uniform_on_host("move kind")]
    back = copy.undo(copy.images)
    assert {*kinds} == {*range(10)}
    for kind, image, shown, found in zip(kinds, images, copy.images, back, strict=True):
        if 5 <= kind <= 8:
            assert torch.equal(found, image)
            assert sorted(shown.flatten().tolist()) == sorted(image.flatten().tolist())
        if kind == 7:
            assert torch.equal(shown, image.flip(1))
        if kind == 8:
            assert torch.equal(shown, image.flip(2))
        if kind < 5:
            assert (shown == 0).any()
    alone = list(MovedCopies(copies=1, scale=0.5)(images[3:4], Draws([3])))[1]
    assert torch.equal(alone.images[0], copy.images[3])
    assert torch.equal(alone.undo(alone.images)[0], back[3])


def test_each_cell_is_hidden_once():
    images = scene(2, 7, 9)[0]
    shown = list(MaskedBlocks(grid=3)(images, Draws([0, 1])))
    times = sum((view.images == 0).all(1) for view in shown)
    assert torch.equal(times, torch.ones_like(times))
    for view in shown:
        assert torch.equal(view.undo(torch.ones_like(images)) == 0, view.images == 0)
        assert torch.equal(torch.where(view.images == 0, images, view.images), images)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GridShifts(0), "grid=0"),
        (lambda: GridShifts(reach=1.5), "reach=1.5"),
        (lambda: DiverseSizes([]), "numbers above 1"),
        (lambda: DiverseSizes([1.0]), "numbers above 1"),
        (lambda: MovedCopies(-1), "copies=-1"),
        (lambda: MovedCopies(degrees=200), "degrees=200"),
        (lambda: MovedCopies(scale=1.0), "scale=1.0"),
        (lambda: MaskedBlocks(1), "grid=1: must be 2 or more"),
    ],
)
def test_out_of_range(make, says):
    with pytest.raises(ValueError, match=says):
        make()

import pytest
import torch

from lightning_attack.attacks import Draws, StructureInvariance
from lightning_attack.attacks.input_transforms.structure import Grid, Way

IMAGE = torch.arange(1.0, 13.0).view(1, 1, 3, 4)


@pytest.mark.parametrize(
    ("number", "amount", "shown"),
    [
        (0, 0.5, [[9, 10, 11, 12], [1, 2, 3, 4], [5, 6, 7, 8]]),
        (1, 0.5, [[3, 4, 1, 2], [7, 8, 5, 6], [11, 12, 9, 10]]),
        (2, 0.0, [[9, 10, 11, 12], [5, 6, 7, 8], [1, 2, 3, 4]]),
        (3, 0.0, [[4, 3, 2, 1], [8, 7, 6, 5], [12, 11, 10, 9]]),
        (4, 0.0, [[12, 11, 10, 9], [8, 7, 6, 5], [4, 3, 2, 1]]),
    ],
)
def test_each_way_moves_pixels_and_logits_back(number, amount, shown):
    way = Way(number, amount)
    assert way.show(IMAGE)[0, 0].tolist() == shown
    assert torch.equal(way.back(way.show(IMAGE)), IMAGE)


def test_ways_that_leave_pixels_in_place():
    assert torch.equal(Way(5, 0.25).show(IMAGE), IMAGE / 4)
    assert torch.equal(Way(5, 0.25).back(IMAGE), IMAGE), "logits are not darkened"
    noisy = Grid([3], [1, 3], [Way(6, 0.0), Way(3, 0.0)]).change(IMAGE, lambda block, way: way.show(block), IMAGE + 100)
    assert noisy[0, 0].tolist() == [[101, 4, 3, 2], [105, 8, 7, 6], [109, 12, 11, 10]]


def test_blocks_stay_in_their_places():
    images, draws = torch.rand(3, 3, 15, 11, dtype=torch.float64), Draws([1, 2, 3])
    places = torch.arange(15 * 11.0).view(1, 1, 15, 11).expand(3, -1, -1, -1)
    ways, others = set(), Draws([4, 5, 6])
    for _ in range(6):
        grids = StructureInvariance(blocks=3).grids(15, 11, others)
        (view,) = StructureInvariance(blocks=3, noise=0)(images, draws)
        moved = view.undo(places)
        assert torch.equal(moved.flatten(1).sort(1)[0], places.flatten(1)), "each logit once"
        ways |= {way.number for grid in grids for way in grid.ways}
        assert all(sum(grid.heights) == 15 and sum(grid.widths) == 11 for grid in grids)
    assert len(ways) == 7
    (alone,) = StructureInvariance()(images[1:2], Draws([2]))
    assert torch.equal(alone.images, next(StructureInvariance()(images, Draws([1, 2, 3]))).images[1:2])


@pytest.mark.parametrize("settings", [{"blocks": 0}, {"copies": 0}, {"noise": -0.1}])
def test_refusals(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        StructureInvariance(**settings)

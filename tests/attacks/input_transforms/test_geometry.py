"""Views whose pixels move or are hidden: shown as said, and moved back."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.attacks.input_transforms.affine import Move, RandomAffine
from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.input_transforms.geometry import DynamicScaling, RandomCrop, RandomFlip
from lightning_attack.attacks.input_transforms.regions import BlockShuffle, LocalRegions
from lightning_attack.attacks.input_transforms.stretch import BlockStretch
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import scene

SEEDS = list(range(6))


def waves(height=60, width=84):
    """A smooth picture without symmetries, six times, in [-1, 1]."""
    y, x = torch.arange(height, dtype=torch.float64)[:, None] / height, torch.arange(width) / width
    return torch.stack([torch.sin(5 * y + 7 * x), torch.cos(6 * y - 4 * x), torch.sin(8 * x + y)]).expand(6, -1, -1, -1)


@pytest.mark.parametrize(
    ("build", "tolerance", "least_shown"),
    [
        (lambda undo: InputDiversity(0.7, prob=1.0, undo=undo), 0.05, 1.0),
        (lambda undo: DynamicScaling(undo=undo), 0.06, 1.0),
        (lambda undo: RandomCrop(undo=undo), 0.05, 0.36),
        (lambda undo: RandomFlip(1.0, undo), 0.0, 1.0),
        (lambda undo: RandomAffine(30.0, 0.2, 0.2, undo), 0.02, 0.4),
        (lambda undo: RandomAffine(30.0, 0.2, [0.7, 1.1], undo, "mirror", slant=0.3), 0.03, 0.4),
        (lambda undo: BlockShuffle(undo=undo), 0.0, 1.0),
        (lambda undo: BlockShuffle(2, undo=undo, degrees=24.0), 0.03, 0.4),
        (lambda undo: BlockStretch(undo=undo), 0.06, 1.0),
    ],
    ids=["diversity", "scaling", "crop", "flip", "affine", "slanted affine", "blocks", "turned blocks", "stretch"],
)
def test_undo_moves_what_is_shown_back(build, tolerance, least_shown):
    images = waves()
    view = next(build(True)(images, Draws(SEEDS)))
    known = view.undo(torch.ones_like(view.images[:, :1]))
    assert known.shape == (6, 1, 60, 84)
    assert float(known.min()) >= 0
    assert float(known.max()) == pytest.approx(1)
    shown = known > 0.99
    assert least_shown * 0.95 <= float(shown.double().mean(dim=(1, 2, 3)).min()) <= 1
    errors = ((view.undo(view.images) - images).abs() * shown).amax(dim=(1, 2, 3))
    assert float(errors.max()) <= tolerance

    forgotten = next(build(False)(images, Draws(SEEDS)))
    assert torch.equal(forgotten.images, view.images)
    left = forgotten.undo(view.images)
    assert left.shape == images.shape
    errors = ((left - images).abs() * shown).amax(dim=(1, 2, 3))
    assert float(errors.min()) > 0.15, "without undo the pixels must be elsewhere for the test to mean something"


def test_scaled_image_in_the_corner_of_a_mirrored_canvas():
    images = waves(20, 30)
    scales = Draws(SEEDS).uniform("scaling size", (), 0.5, 1.5).tolist()
    view = next(DynamicScaling(0.5, 1.5)(images, Draws(SEEDS)))
    assert view.images.shape == (6, 3, 30, 45)
    assert min(scales) < 0.8
    assert max(scales) > 1.2
    for image, shown, scale in zip(images.split(1), view.images, scales, strict=True):
        h, w = round(scale * 20), round(scale * 30)
        small = F.interpolate(image, (h, w), mode="bilinear", align_corners=False)[0]
        assert torch.equal(shown[:, :h, :w], small)
        across, down = min(w, 45 - w), min(h, 30 - h)
        assert torch.equal(shown[:, :h, w : w + across], small.flip(-1)[..., :across])
        assert torch.equal(shown[:, h : h + down, :w], small.flip(-2)[:, :down])
        assert torch.equal(shown[:, 2 * h :, :w], small[:, : max(0, 30 - 2 * h)])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_one_scale_needs_no_canvas(scale):
    images = waves(20, 30)
    view = next(DynamicScaling(scale, scale)(images, Draws(SEEDS)))
    size = (int(scale * 20), int(scale * 30))
    assert torch.equal(view.images, F.interpolate(images, size, mode="bilinear", align_corners=False))
    if scale == 1:
        assert torch.equal(view.images, images)
        assert torch.equal(view.undo(images), images)


def test_crop_is_the_enlarged_box():
    images = waves(40, 56)
    view = next(RandomCrop(0.5)(images, Draws(SEEDS)))
    known = view.undo(torch.ones(6, 2, 40, 56, dtype=torch.float64))
    heights = set()
    for image, shown, mask in zip(images, view.images, known, strict=True):
        assert torch.equal(mask[0], mask[1]), "any number of channels"
        rows, columns = mask[0].amax(1).nonzero().flatten(), mask[0].amax(0).nonzero().flatten()
        assert mask.sum() == 2 * len(rows) * len(columns)
        assert 20 <= len(rows) <= 40
        assert abs(len(columns) - len(rows) * 1.4) <= 2, "in proportion"
        part = image[None, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert torch.equal(shown, F.interpolate(part, (40, 56), mode="bilinear", align_corners=False)[0])
        heights.add(len(rows))
    assert len(heights) > 2


def test_flips_are_as_frequent_as_said():
    images = torch.tensor([[[[0.0, 1.0]]]]).expand(400, 1, 1, 2)
    view = next(RandomFlip(0.3)(images, Draws(range(400))))
    assert float(view.images[..., 0].sum()) == pytest.approx(120, abs=30)


@pytest.mark.parametrize(("height", "width"), [(60, 101), (81, 40)])
def test_affine_moves_points_as_a_rigid_body_with_zoom(height, width):
    # A spot to the right of the centre, and one below: where they go, measured by their centres of mass.
    transform = RandomAffine(25.0, 0.1, 0.2)
    y, x = torch.arange(height).double()[:, None] - (height - 1) / 2, torch.arange(width).double() - (width - 1) / 2
    points = [(10.0, 0.0), (0.0, 9.0), (-8.0, 5.0)]
    spots = torch.stack([torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 4) for a, b in points])
    moves = transform.moves(height, width, Draws(SEEDS))
    view = next(transform(spots.expand(6, -1, -1, -1), Draws(SEEDS)))
    assert max(abs(move.angle) for move in moves) > math.radians(15)
    assert len(set(moves)) == 6
    for move, shown in zip(moves, view.images, strict=True):
        assert abs(move.angle) <= math.radians(25)
        assert 0.8 <= move.zoom <= 1.2
        assert abs(move.right) <= 0.1 * width
        assert abs(move.down) <= 0.1 * height
        for (a, b), spot in zip(points, shown, strict=True):
            place = complex(a, b) * move.zoom * complex(math.cos(move.angle), math.sin(move.angle))
            mass = spot.sum()
            assert float((spot * x).sum() / mass) == pytest.approx(place.real + move.right, abs=0.1)
            assert float((spot * y).sum() / mass) == pytest.approx(place.imag + move.down, abs=0.1)


def test_affine_leaves_black_around():
    view = next(RandomAffine(0, 0.0, 0.5)(torch.ones(6, 3, 40, 30), Draws(SEEDS)))
    moves = RandomAffine(0, 0.0, 0.5).moves(40, 30, Draws(SEEDS))
    assert min(move.zoom for move in moves) < 0.9
    for move, shown in zip(moves, view.images, strict=True):
        assert float(shown.mean()) == pytest.approx(min(1, move.zoom**2), abs=0.05)


def test_a_slant_by_hand():
    """Stretched to twice the width and half the height, sheared by half: (1, 0) -> (2, 0), (0, 1) -> (1/2, 1/2)."""
    move = Move(0.0, 1.0, 3.0, 0.0, stretch=2.0, shear=0.5)
    assert move.to_view() == ((2.0, 0.5, 3.0), (0.0, 0.5, 0.0))
    turned = Move(0.3, 0.8, 2.0, -1.0, stretch=1.2, shear=-0.4)
    there, back = (torch.tensor([*matrix(), (0, 0, 1)]) for matrix in (turned.to_view, turned.to_image))
    assert torch.allclose(there @ back, torch.eye(3), atol=1e-6)
    zooms = [move.zoom for move in RandomAffine(scale=[0.5, 1.2], slant=0.2).moves(9, 9, Draws(range(200)))]
    assert 0.5 <= min(zooms) < 0.55
    assert 1.15 < max(zooms) <= 1.2


def test_affine_amid_mirror_images():
    images = torch.linspace(0.25, 0.75, 30).expand(6, 3, 40, 30)
    black, mirror = (RandomAffine(0, 0.0, 0.5, border=border) for border in ("black", "mirror"))
    plain, mirrored = (next(transform(images, Draws(SEEDS))) for transform in (black, mirror))
    inside = next(black(torch.ones_like(images), Draws(SEEDS))).images > 0.99
    assert torch.allclose(mirrored.images[inside], plain.images[inside], atol=0.01)
    assert float(mirrored.images.min()) >= 0.25
    assert float(plain.images.min()) == 0
    assert torch.equal(mirrored.undo(images), plain.undo(images)), "the same pixels have logits"


@pytest.mark.parametrize("blocks", [2, 3])
def test_blocks_are_shuffled_as_wholes(blocks):
    height, width = 24, 30
    sources = torch.arange(height * width).view(1, 1, height, width)
    orders = set()
    for view in BlockShuffle(blocks, copies=25)(sources, Draws([7])):
        assert torch.equal(view.images.flatten().sort()[0], sources.flatten()), "each pixel once"
        row, column = view.images[0, 0] // width, view.images[0, 0] % width
        assert (column == column[:1]).all(), "strips keep their columns together"
        assert int((column[0].diff() != 1).sum()) <= blocks - 1
        assert int((row.diff(dim=0) != 1).sum(0).max()) <= blocks - 1
        orders.add(tuple(view.images.flatten().tolist()))
    assert len(orders) > 15


def test_kept_regions_stay_and_the_others_do_not():
    images, _ = scene(6, 24, 17)
    seen = list(LocalRegions(grid=4, keep=0.25, copies=3)(images, Draws(SEEDS)))
    assert len(seen) == 3
    masks = []
    for view in seen:
        mask = view.undo(torch.ones(6, 2, 24, 17))
        assert torch.equal(mask[:, 0], mask[:, 1]), "any number of channels"
        mask = mask[:, :1]
        assert set(mask.unique().tolist()) == {0, 1}
        row, column = torch.arange(24) * 4 // 24, torch.arange(17) * 4 // 17
        kept = torch.zeros(6, 4, 4).index_put_((torch.arange(6)[:, None, None], row[:, None], column), mask[:, 0])
        assert torch.equal(kept[:, row][..., column], mask[:, 0]), "whole cells"
        assert kept.sum(dim=(1, 2)).tolist() == [4] * 6
        assert torch.equal(view.images * mask, images * mask)
        hidden = (mask == 0).expand_as(images)
        assert (view.images[hidden] != images[hidden]).all()
        for image, shown in zip(images, view.images, strict=True):
            assert torch.isin(shown, image).all(), "of the same image"
        assert torch.equal(view.undo(images), images * mask)
        masks.append(mask)
    assert len({tuple(mask[image].flatten().tolist()) for mask in masks for image in range(6)}) > 15


def test_regions_keep_one_cell_at_least():
    view = next(LocalRegions(grid=3, keep=0.01)(torch.rand(4, 3, 9, 9), Draws(range(4))))
    assert view.undo(torch.ones(4, 1, 9, 9)).sum(dim=(1, 2, 3)).tolist() == [9] * 4


def test_hidden_logits_of_regions_are_dropped_even_if_not_finite():
    view = next(LocalRegions(grid=2)(torch.rand(1, 3, 4, 4), Draws([0])))
    known = view.undo(torch.ones(1, 1, 4, 4)) == 1
    logits = torch.where(known, 1.0, math.nan)
    assert torch.equal(view.undo(logits), known.float())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DynamicScaling(low=0.0), "low=0.0, high=1.5: must be 0 < low <= high"),
        (lambda: DynamicScaling(low=1.2, high=1.1), "low=1.2, high=1.1"),
        (lambda: DynamicScaling(high=math.inf), "high=inf"),
        (lambda: DynamicScaling(high=math.nan), "high=nan"),
        (lambda: RandomCrop(scale=0.0), "scale=0.0: must be above 0, at most 1"),
        (lambda: RandomCrop(scale=1.1), "scale=1.1"),
        (lambda: RandomFlip(prob=1.1), "prob=1.1: must be between 0 and 1"),
        (lambda: RandomAffine(degrees=181.0), "degrees=181.0: must be between 0 and 180"),
        (lambda: RandomAffine(translate=-0.1), "translate=-0.1"),
        (lambda: RandomAffine(scale=1.0), "scale=1.0: must be 0 or more, below 1"),
        (lambda: RandomAffine(scale=[1.2, 0.5]), re.escape("scale=[1.2, 0.5]: must be a number, or the smallest")),
        (lambda: RandomAffine(scale=[0.5]), "smallest and the largest zoom"),
        (lambda: RandomAffine(slant=1.1), "slant=1.1"),
        (lambda: RandomAffine(border="grey"), "border='grey': must be black or mirror"),
        (lambda: BlockShuffle(blocks=0), "blocks=0: must be 1 or more"),
        (lambda: BlockShuffle(copies=0), "copies=0"),
        (lambda: BlockShuffle(degrees=-1.0), "degrees=-1.0: must be between 0 and 180"),
        (lambda: LocalRegions(grid=0), "grid=0"),
        (lambda: LocalRegions(keep=0.0), "keep=0.0: must be above 0, at most 1"),
        (lambda: LocalRegions(copies=0), "copies=0"),
    ],
)
def test_settings_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()

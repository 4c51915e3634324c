import pytest
import torch

from lightning_attack.attacks import (
    Admix,
    BlockShuffle,
    BlockStretch,
    Draws,
    DynamicScaling,
    InputDiversity,
    MaskedBlocks,
    RandomAffine,
    RandomChain,
    RandomColour,
    RandomFlip,
    ScaleCopies,
    mi_fgsm,
    ops,
)
from tests.attacks.toys import curved, scene

EXACT = [RandomFlip(prob=1.0), BlockShuffle(3), BlockStretch(2, strength=0.0)]
"""Transforms that only permute pixels."""


def test_logits_go_back_through_the_whole_chain():
    images, _ = scene(4, 12, 10)
    draws, orders = Draws([1, 2, 3, 4]), set()
    for _ in range(6):
        (view,) = RandomChain(EXACT, least=2, most=3)(images, draws)
        assert torch.equal(view.undo(view.images), images)
        assert not torch.equal(view.images, images)
    chain = RandomChain(EXACT, least=1, most=3)
    for _ in range(30):
        orders |= {tuple(order) for order in chain.chains(draws)}
    assert len(orders) == 3 + 6 + 6  # every order of one, two and three


def test_a_chain_of_four_is_its_four_transforms_one_after_the_other():
    """In the drawn order, with the numbers that each draws alone; the logits go back last first."""
    images, _ = scene(3, 24, 20)
    four = [RandomFlip(prob=1.0), BlockShuffle(2), RandomAffine(degrees=45.0), InputDiversity(0.5, 1.0)]
    chain = RandomChain(four, least=4, most=4)
    orders = chain.chains(Draws([1, 2, 3]))
    (view,) = chain(images, Draws([1, 2, 3]))
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({*map(tuple, orders)}) > 1
    logits = torch.rand(3, 5, 24, 20, dtype=torch.float64)
    back = view.undo(logits)
    for row, order in enumerate(orders):
        draws, shown, undone = Draws([row + 1]), images[row : row + 1], []
        for number in order:
            one = next(four[number](shown, draws))
            shown, undone = one.images, [one.undo, *undone]
        expected = logits[row : row + 1]
        for undo in undone:
            expected = undo(expected)
        assert torch.equal(view.images[row : row + 1], shown)
        assert torch.equal(back[row : row + 1], expected)


def test_the_preset_shows_chains_of_two_to_four_at_neighbours_and_undoes_them():
    attack = ops(noise="16/255")
    noise, chain = attack.input_transforms
    assert noise.std == pytest.approx(16 / 255)
    draws = Draws([1, 2, 3])
    lengths = {len(order) for _ in range(20) for order in chain.chains(draws)}
    assert lengths == {2, 3, 4}
    # A ramp from left to right comes back as itself where it was shown, but for the seams between blocks.
    ramp = torch.linspace(0, 1, 96, dtype=torch.float64).expand(3, 1, 96, 96)
    for _ in range(20):
        (bright,) = chain(torch.ones_like(ramp), draws.fork())
        (moved,) = chain(ramp, draws)
        shown = moved.undo(torch.ones_like(ramp)) > 1 - 1e-9
        wrong = (moved.undo(moved.images / bright.images.amax((1, 2, 3), keepdim=True)) - ramp).abs()[shown]
        assert shown.double().mean() > 0.3
        assert (wrong < 0.03).double().mean() > 0.9


def test_views_differ_from_step_to_step_and_belong_to_the_image():
    images, _ = scene(3, 12, 10)
    chain = RandomChain([RandomAffine(), BlockShuffle()], most=2, copies=2)
    together, alone = Draws([1, 2, 3]), Draws([2])
    seen = []
    for _ in range(3):
        views, single = list(chain(images, together)), list(chain(images[1:2], alone))
        assert len(views) == len(single) == 2
        for view, one in zip(views, single, strict=True):
            assert torch.equal(view.images[1:2], one.images)
            assert torch.equal(view.undo(view.images)[1:2], one.undo(one.images))
            seen.append(view.images[1])
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_one_of_several_views_is_drawn():
    chain, image = RandomChain([ScaleCopies(3)], most=1), torch.full((1, 1, 1, 1), 0.8)
    draws = Draws([0])
    assert {round(float(next(chain(image, draws)).images), 3) for _ in range(30)} == {0.8, 0.4, 0.2}


def test_pixels_that_are_hidden_where_they_are_have_no_logits():
    images = torch.ones(2, 3, 8, 8)
    chain = RandomChain([MaskedBlocks(2), RandomColour()], least=2, most=2)
    assert not chain.spatial
    view = next(chain(images, Draws([1, 2])))
    shown = view.undo(torch.ones(2, 1, 8, 8))
    assert shown.mean() == 0.75
    assert len({tuple(one.flatten().tolist()) for one in shown}) == 2, "each image has its own"


def test_an_attack_through_chains_is_the_attack_where_they_change_nothing():
    model = curved()
    images, labels = scene(2)
    still = RandomChain([RandomFlip(prob=0.0), BlockStretch(1)], least=0, most=2)
    plain = mi_fgsm(steps=3)(model, images, labels, [1, 2])
    assert torch.equal(mi_fgsm(steps=3, input_transforms=[still])(model, images, labels, [1, 2]), plain)
    moving = RandomChain([RandomFlip(), RandomAffine()], least=1, most=2)
    assert not torch.equal(mi_fgsm(steps=3, input_transforms=[moving])(model, images, labels, [1, 2]), plain)


def test_scaling_within_the_size_of_the_image():
    images, _ = scene(3, 12, 10)
    (view,) = RandomChain([DynamicScaling(0.5, 1.0), RandomFlip()], least=1, most=1)(images, Draws([1, 2, 3]))
    assert view.images.shape == view.undo(view.images).shape == images.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transforms": EXACT, "least": 2, "most": 1}, "least=2, most=1"),
        ({"transforms": EXACT, "most": 4}, "the number of transforms, which is 3"),
        ({"transforms": EXACT, "least": 0, "most": 0}, "most from 1"),
        ({"transforms": EXACT, "copies": 0}, "copies=0"),
        ({"transforms": [Admix()], "most": 1}, "Admix mixes images"),
        ({"transforms": [DynamicScaling()], "most": 1}, "DynamicScaling changes the size of images.*set its high=1"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomChain(**settings)

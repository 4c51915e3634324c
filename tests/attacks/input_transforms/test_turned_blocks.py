"""The rotation of BSR, against places that are worked out by hand."""

import math

import pytest
import torch

from lightning_attack.attacks import BlockShuffle, bsr

HEIGHT, WIDTH, CUT = 60, 100, 40
"""A picture that is cut at column 40; in the strip to its right, 60 pixels wide, a spot is drawn."""
GRID = torch.meshgrid(torch.arange(HEIGHT).double(), torch.arange(WIDTH).double(), indexing="ij")


class Known:
    """Draws of one image whose numbers are given, by purpose; the last one of a purpose is repeated."""

    seeds = (0,)

    def __init__(self, **numbers):
        self.numbers = {purpose.replace("_", " "): list(values) for purpose, values in numbers.items()}

    def uniform_on_host(self, purpose):
        values = self.numbers[purpose]
        return [values.pop(0) if len(values) > 1 else values[0]]


def shown(angle, row_order=(0.1, 0.2), row=0.5, right=18.0, down=9.0):
    """The view of a picture with a spot `right` and `down` of the centre of the second strip; columns stay in place."""
    y, x = GRID
    centre = (HEIGHT - 1) / 2 + down, CUT + (WIDTH - CUT - 1) / 2 + right
    spot = torch.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 8)
    draws = Known(
        block_column_place=[0.0, (CUT + 0.5) / (WIDTH + 1)],
        block_column_order=[0.1, 0.2],
        block_row_place=[0.0, (row * HEIGHT + 0.5) / (HEIGHT + 1)],
        block_row_order=[0.1, 0.2, *row_order],  # of the first strip, then of the second
        block_angle=[0.5, angle],
    )
    (view,) = BlockShuffle(2, degrees=24.0)(spot.view(1, 1, HEIGHT, WIDTH), draws)
    return view.images[0, 0]


def place(picture):
    """Where the spot is, in pixels to the right of and below the centre of the second strip."""
    y, x = GRID
    right, down = ((axis * picture).sum() / picture.sum() for axis in (x, y))
    return float(right) - CUT - (WIDTH - CUT - 1) / 2, float(down) - (HEIGHT - 1) / 2


@pytest.mark.parametrize(("number", "degrees"), [(0.0, -24), (0.25, -12), (0.5, 0), (0.9, 19.2), (1 - 1e-9, 24)])
def test_a_strip_is_turned_by_the_drawn_angle_about_its_centre(number, degrees):
    """A spot 18 pixels right of the centre and 9 below it goes round the centre, from right to down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    expected = 18 * cos - 9 * sin, 18 * sin + 9 * cos
    assert place(shown(number)) == pytest.approx(expected, abs=0.02)


def test_strips_are_turned_before_they_are_cut():
    """The pieces that change places are those of the turned strip."""
    turned, swapped = shown(0.9), shown(0.9, row_order=(0.2, 0.1), row=0.4)
    cut = int(0.4 * HEIGHT)
    assert torch.equal(swapped[:, CUT:], torch.cat([turned[cut:, CUT:], turned[:cut, CUT:]]))
    assert not torch.equal(turned, shown(0.5))


def test_the_preset_turns_by_up_to_24_degrees():
    assert [transform.degrees for transform in bsr().input_transforms] == [24.0]

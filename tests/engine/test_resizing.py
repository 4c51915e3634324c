"""Lookups of rows and columns become the resizing operator where it takes the same ones, and only there."""

import pytest
import torch
import torch.nn.functional as F

from lightning_attack.engine.graphs import calls
from lightning_attack.engine.trace import traced

aten = torch.ops.aten


def lookup(shift, size=(10, 6)):
    """Nearest resizing written out as older torch does when it traces, with rows shifted cyclically."""

    def function(images):
        rows, columns = (
            torch.arange(size[axis], dtype=torch.float32) * (images.shape[2 + axis] / size[axis]) for axis in (0, 1)
        )
        rows = (rows.to(torch.int64) + shift) % images.shape[2]
        return aten._unsafe_index(images, [None, None, rows[:, None], columns.to(torch.int64)])

    return function


@pytest.mark.parametrize(("shift", "joined"), [(0, True), (1, False)])
def test_lookups_are_joined_where_they_are_resizing(shift, joined):
    images = torch.rand(2, 3, 5, 4)
    module = traced(lookup(shift), tuple(images.shape))
    assert bool(calls(module.graph, aten.upsample_nearest2d.default)) == joined
    assert torch.equal(module(images), lookup(shift)(images))
    assert torch.equal(module(images), F.interpolate(images, size=(10, 6))) == joined


def test_lookups_by_the_images_themselves_stay():
    def function(images):
        rows = (images[0, 0, :, 0] * 5).to(torch.int64)
        return aten._unsafe_index(images, [None, None, rows[:, None], torch.arange(4)])

    images = torch.rand(2, 3, 5, 4)
    assert torch.equal(traced(function, tuple(images.shape))(images), function(images))

"""Every way to compute a convolution and its input gradient, against the convolution itself in float64."""

import pytest
import torch
from torch import nn

from lightning_attack.engine.convolution import Geometry, adjoint
from lightning_attack.engine.strided import spread, thinned
from tests.engine.compare import both, check, noise, operators
from tests.precisions import needs_bfloat16

pytestmark = pytest.mark.usefixtures("silent")

CONVOLUTIONS = {
    "3x3": nn.Conv2d(6, 8, 3, padding=1),
    "no_padding": nn.Conv2d(6, 8, 3),
    "uneven": nn.Conv2d(6, 8, (1, 3), padding=(0, 2), dilation=(1, 2)),
    "too_much_padding": nn.Conv2d(6, 8, 1, padding=1),
    "grouped": nn.Conv2d(6, 9, 3, padding=1, groups=3),
    "stride": nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "stride_3_of_5": nn.Conv2d(6, 8, 5, stride=3, padding=1, groups=2),
    "1x1": nn.Conv2d(6, 8, 1),
    "1x1_with_stride": nn.Conv2d(6, 8, 1, stride=(2, 3)),
    "1x1_dilated": nn.Conv2d(6, 8, 1, dilation=2),
    "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "depthwise_stride": nn.Conv2d(6, 6, 3, padding=1, stride=2, groups=6),
    "depthwise_dilated": nn.Conv2d(6, 6, 3, padding=4, dilation=4, groups=6),
    "depthwise_beyond_the_map": nn.Conv2d(6, 6, 3, padding=40, dilation=40, groups=6),
    "depthwise_dilated_without_padding": nn.Conv2d(6, 6, (3, 2), dilation=(2, 3), groups=6),
    "transposed": nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1),
    "transposed_grouped": nn.ConvTranspose2d(6, 9, 4, stride=2, padding=1, groups=3),
    "transposed_1x1": nn.ConvTranspose2d(6, 8, 1, stride=2),
    "stem_7x7": nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False),
    "stem_3x3": nn.Conv2d(3, 8, 3, stride=2, padding=1),
    "stem_4x4_patches": nn.Conv2d(3, 8, 4, stride=4),
    "stem_2_of_5": nn.Conv2d(3, 8, 2, stride=5),
    "stem_7x7_of_4": nn.Conv2d(3, 8, 7, stride=4, padding=3),
    "stem_5x5_of_3": nn.Conv2d(3, 8, 5, stride=3, padding=1),
    "stem_padded": nn.Conv2d(3, 8, 2, stride=2, padding=1),
    "stem_dilated": nn.Conv2d(3, 8, 3, stride=2, padding=2, dilation=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("size", [(12, 16), (15, 13)])
def test_each_kind(name, size):
    convolution = CONVOLUTIONS[name].eval().requires_grad_(False)
    check(convolution, noise(2, convolution.in_channels, *size))


@needs_bfloat16
@pytest.mark.parametrize("name", ["3x3", "1x1_with_stride", "depthwise_stride", "depthwise_dilated", "stem_7x7"])
def test_bfloat16(name):
    convolution = CONVOLUTIONS[name].eval().requires_grad_(False)
    check(convolution, noise(2, convolution.in_channels, 12, 16), 1e-2, 1e-2, precision="bf16")


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("3x3", "_convolution_pointwise.default", "_convolution_pointwise.default"),
        ("stride", "_convolution_pointwise.default", "_convolution_transpose_pointwise.default"),
        ("1x1", "pointwise", "pointwise"),
        ("1x1_with_stride", "thinned", "spread"),
        ("depthwise_dilated", "dilated_depthwise", "dilated_depthwise"),
        ("stem_7x7", "_convolution_pointwise.default", "shuffled"),
    ],
)
def test_each_takes_its_fast_way(name, forward, backward):
    convolution = CONVOLUTIONS[name].eval().requires_grad_(False)
    images = noise(2, convolution.in_channels, 12, 16)
    for found, wanted in zip(operators(check(convolution, images), images), (forward, forward, backward), strict=True):
        assert any(name.endswith(wanted) for name in found), found


class Joined(nn.Module):
    """Two branches joined, and a depthwise and a 1x1 convolution or a 3x3 one of both."""

    def __init__(self, last):
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 1), last

    def forward(self, x):
        return self.last(torch.cat([self.left(x).relu(), self.right(x)], 1))


@pytest.mark.parametrize(
    "last",
    [nn.Conv2d(9, 4, 3, padding=1), nn.Conv2d(9, 4, 3, padding=1, stride=2), nn.ConvTranspose2d(9, 4, 2, stride=2),
     nn.Sequential(nn.Conv2d(9, 9, 3, padding=1, groups=9), nn.Conv2d(9, 4, 1))],
)  # fmt: skip
def test_gradients_of_joined_tensors_come_in_parts(last):
    network, images = Joined(last).eval().requires_grad_(False), noise(2, 3, 8, 10)
    backward = operators(check(network, images), images)[2]
    assert not any("slice" in name for name in backward), backward


def test_the_adjoint_by_its_definition():
    # <conv(x), g> = <x, adjoint(g)> with the geometries themselves, whatever computes them.
    geometry, weight = Geometry((2, 1), (1, 2), (1, 2), 2), noise(4, 3, 3, 3).double()
    x = noise(1, 6, 9, 8).double()
    result = torch.ops.aten.convolution(x, weight, None, *_settings(geometry))
    gradient = noise(*result.shape, seed=2).double()
    turned, its = adjoint(geometry, weight, tuple(x.shape), tuple(result.shape))
    back = torch.ops.aten.convolution(gradient, its, None, *_settings(turned))
    assert float((result * gradient).sum()) == pytest.approx(float((x * back).sum()), rel=1e-12)


def test_thinning_and_spreading_are_adjoint():
    x = noise(2, 3, 7, 5)
    small = thinned(x, [2, 3])
    g = noise(*small.shape, seed=1)
    assert float((small * g).sum()) == pytest.approx(float((x * spread(g, [2, 3], [7, 5])).sum()), rel=1e-6)


def test_weights_are_packed_once():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)).eval().requires_grad_(False)
    fast = check(network, noise(1, 3, 8, 8))
    count = len(fast._packed._packed)
    for size in (8, 10):
        both(fast, noise(1, 3, size, size))
    assert len(fast._packed._packed) == count == 4


def _settings(g):
    return g.stride, g.padding, g.dilation, g.transposed, g.output_padding, g.groups

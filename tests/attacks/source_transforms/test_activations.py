"""BPA, LinBP and IAA on activations and pooling windows of other forms, against kinks and windows one by one."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from lightning_attack.attacks import LinearBackward, SmoothBackward, SoftplusResiduals
from tests.attacks.source_transforms.test_references import bump, gradient, images, sloped, transformed

KINDS = {
    "hardtanh": (nn.Hardtanh(-0.4, 1.5), -0.4, [(-0.4, 1), (1.5, -1)], 0.0),
    "hardtanh of 1": (nn.Hardtanh(), -1.0, [(-1.0, 1), (1.0, -1)], 0.0),
    "leaky": (nn.LeakyReLU(0.3), 0.0, [(0.0, 0.7)], 0.3),
    "leaky, usual slope": (nn.LeakyReLU(), 0.0, [(0.0, 0.99)], 0.01),
}
"""Activations; what they are far below, how much steeper they become at which places, and their slope far below."""


class Bent(nn.Module):
    """A convolution on either side of an activation; a reference computes another."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.activation = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1), activation
        self.double().requires_grad_(False).eval()

    def forward(self, x):
        return self.last(self.activation(3 * self.first(x)))


def smooth(kind, z):
    module, _, kinks, slope = KINDS[kind]
    return sloped(z, module(z), slope + sum(steeper * bump(z - place) for place, steeper in kinks))


def linear(kind, z):
    return sloped(z, KINDS[kind][0](z), torch.ones_like(z))


def soft(kind, z):
    _, below, kinks, slope = KINDS[kind]
    return below + slope * z + sum(steeper * (1 + torch.exp(20 * (z - place))).log() / 20 for place, steeper in kinks)


WAYS = {
    "bpa": (SmoothBackward(start=0.0), smooth),
    "linbp": (LinearBackward(start=0.0), linear),
    "iaa": (SoftplusResiduals(), soft),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_activations_of_other_forms(way, kind):
    transform, reference = WAYS[way]
    logits, found = transformed(Bent(KINDS[kind][0]), transform)
    wanted_logits, wanted = gradient(Bent(lambda z: reference(kind, z)), images())
    _, plain = gradient(Bent(KINDS[kind][0]), images())
    assert torch.allclose(logits, wanted_logits, rtol=1e-10, atol=1e-12)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()


class Pooled(Function):
    """Maximum pooling whose gradient is shared out by softmax(temperature * z), place by place of each window."""

    @staticmethod
    def forward(ctx, z, temperature, settings):
        ctx.save_for_backward(z)
        ctx.temperature, ctx.settings = temperature, settings
        return F.max_pool2d(z, **settings)

    @staticmethod
    def backward(ctx, given):
        (z,), settings = ctx.saved_tensors, {"dilation": (1, 1), "padding": (0, 0)} | ctx.settings
        kernel, stride, padding, dilation = map(settings.get, ("kernel_size", "stride", "padding", "dilation"))
        result = torch.zeros_like(z)
        for i, j in product(range(given.shape[2]), range(given.shape[3])):
            places = [
                (row, column)
                for a, b in product(range(kernel[0]), range(kernel[1]))
                if 0 <= (row := i * stride[0] - padding[0] + a * dilation[0]) < z.shape[2]
                and 0 <= (column := j * stride[1] - padding[1] + b * dilation[1]) < z.shape[3]
            ]
            shares = (ctx.temperature * torch.stack([z[:, :, row, column] for row, column in places])).softmax(0)
            for share, (row, column) in zip(shares, places, strict=True):
                result[:, :, row, column] += share * given[:, :, i, j]
        return result, None, None


WINDOWS = {
    "oblong": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)},
    "apart": {"kernel_size": (2, 2), "stride": (3, 3)},
    "dilated": {"kernel_size": (3, 2), "stride": (2, 2), "padding": (1, 1), "dilation": (2, 3)},
    "beyond": {"kernel_size": (3, 3), "stride": (4, 4), "padding": (1, 1), "ceil_mode": True},
}


@pytest.mark.parametrize("windows", WINDOWS)
def test_windows_of_other_forms(windows):
    settings = WINDOWS[windows]
    logits, found = transformed(Bent(nn.MaxPool2d(**settings)), SmoothBackward(temperature=4.0))
    wanted_logits, wanted = gradient(Bent(lambda z: Pooled.apply(z, 4.0, settings)), images())
    _, plain = gradient(Bent(nn.MaxPool2d(**settings)), images())
    assert torch.equal(logits, wanted_logits)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()


def test_without_a_temperature_pooling_is_as_it_is():
    def activation(pool):
        return lambda z: pool(smooth("leaky", z))

    pool = nn.MaxPool2d(2)
    model = Bent(nn.Sequential(KINDS["leaky"][0], pool))
    _, wanted = gradient(Bent(activation(pool)), images())
    _, found = transformed(model, SmoothBackward(start=0.0, temperature=None))
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    _, other = transformed(model, SmoothBackward(start=0.0))
    assert (other - wanted).abs().max() > 1e-3 * wanted.abs().max()

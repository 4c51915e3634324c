"""`SegmentationModel`: one normalisation, padding that is cropped again, logits of the image's size, clear errors."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.models import ModelError, SegmentationModel, as_segmentation_model, freeze

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.25, 0.5)


class Spy(nn.Module):
    """Keeps its input and returns what it is told."""

    def __init__(self, answer=lambda x: x):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        self.seen = x
        return self.answer(x)


def photo(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_normalises_once_and_pads_with_the_mean_colour():
    network = Spy()
    images = photo(2, 3, 33, 57)
    out = SegmentationModel(network, mean=MEAN, std=STD, stride=32)(images)
    by_hand = torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    assert network.seen.shape == (2, 3, 64, 64)
    assert torch.allclose(network.seen[..., :33, :57], by_hand, atol=1e-6)
    assert network.seen[..., 33:, :].abs().max() == 0  # zeros here are the mean colour
    assert network.seen[..., 57:].abs().max() == 0
    assert torch.equal(out, network.seen[..., :33, :57])  # at the bottom and the right, so nothing is shifted


@pytest.mark.parametrize("size", [(1, 1), (31, 64), (32, 32), (64, 65)])
def test_pads_no_more_than_needed(size):
    network = Spy()
    assert SegmentationModel(network, stride=32)(photo(1, 3, *size)).shape[-2:] == size
    assert network.seen.shape[-2:] == tuple((n + 31) // 32 * 32 for n in size)


def test_small_logits_are_resized_before_the_padding_is_cut():
    images = photo(2, 3, 33, 57)
    network = Spy(lambda x: F.avg_pool2d(x, 8)[:, [0, 1, 2, 0]])
    out = SegmentationModel(network, num_classes=4, mean=MEAN, std=STD, stride=32)(images)
    x = F.pad((images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1), (0, 7, 0, 31))
    small = F.avg_pool2d(x, 8)[:, [0, 1, 2, 0]]
    expected = F.interpolate(small, size=(64, 64), mode="bilinear", align_corners=False)[..., :33, :57]
    assert torch.allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: {"out": x, "aux": -x},
        lambda x: {"out": x, "aux": [-x, -x]},
        lambda x: {"out": x, "aux": x.mean((2, 3))},
        lambda x: {"logits": x, "loss": 0},
        lambda x: SimpleNamespace(logits=x),
        lambda x: (x, -x),
        lambda x: [x],
        lambda x: {"out": (x, -x)},
    ],
)
def test_forms_of_output(form):
    images = photo(1, 3, 5, 6)
    assert torch.equal(SegmentationModel(Spy(form))(images), images)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda x: (x.sum(), x), r"\(\)"),
        (lambda x: [], "list"),
        (lambda x: {"masks": x}, "dict"),
        (lambda x: x[:, 0], r"\(2, 8, 8\)"),
        (lambda x: x[:1], r"\(1, 3, 8, 8\)"),
        (lambda x: x[:, :2], "2 classes, but num_classes is 3"),
    ],
)
def test_wrong_output_names_the_network(answer, found):
    with pytest.raises(ModelError, match=f"network 'my_net' returned {found}"):
        SegmentationModel(Spy(answer), num_classes=3, name="my_net")(photo(2, 3, 8, 8))


def test_classes_are_read_off_the_first_output_and_hold_from_then_on():
    network = Spy(lambda x: x[:, :2])
    model = SegmentationModel(network)
    model(photo(1, 3, 4, 4))
    assert model.num_classes == 2
    network.answer = lambda x: x
    with pytest.raises(ModelError, match="3 classes"):
        model(photo(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": (0.5,)}, r"mean=\[0.5\]"),
        ({"std": (1, 1, 0)}, "std above 0"),
        ({"std": (1, 1)}, "three numbers"),
        ({"stride": 0}, "stride=0"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ModelError, match=message):
        SegmentationModel(nn.Identity(), **arguments)


def test_gradient_is_that_of_01_pixels():
    images = photo(1, 3, 5, 7).requires_grad_()
    SegmentationModel(nn.Identity(), mean=MEAN, std=STD, stride=4)(images).sum().backward()
    expected = (1 / torch.tensor(STD)).view(1, 3, 1, 1).expand(1, 3, 5, 7)
    assert torch.allclose(images.grad, expected)


def test_float64_stays_float64():
    # Normalising in float32 would round a float64 study without a word.
    model = SegmentationModel(nn.Conv2d(3, 2, 1), mean=MEAN, std=STD).double()
    assert model(photo(1, 3, 4, 4).double()).dtype == torch.float64


def test_normalisation_is_not_part_of_a_checkpoint():
    inner = nn.Conv2d(3, 2, 1)
    assert {name.removeprefix("network.") for name in SegmentationModel(inner).state_dict()} == set(inner.state_dict())


def test_freeze():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.Dropout())).train()
    assert freeze(model) is model
    assert not any(module.training for module in model.modules())
    assert not any(weight.requires_grad for weight in model.parameters())


def test_as_segmentation_model():
    wrapped = SegmentationModel(nn.Identity(), mean=MEAN, std=STD, name="mine")
    assert as_segmentation_model(wrapped, "other") is wrapped  # wrapping twice would normalise twice
    images = photo(1, 3, 4, 4)
    assert torch.equal(as_segmentation_model(nn.Identity())(images), images)
    assert as_segmentation_model(nn.Identity(), "other").name == "other"
    assert as_segmentation_model(nn.AvgPool2d(2)).name == "avg_pool2d"

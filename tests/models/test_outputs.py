"""Forms of outputs: binary networks, classes last, several maps; what cannot be told apart is said."""

import warnings
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import pgd
from lightning_attack.attacks.errors import AttackError
from lightning_attack.engine import prepare
from lightning_attack.models import ClassMap, Ensemble, ModelError, SegmentationModel, as_segmentation_model, freeze
from lightning_attack.models.export import export_model
from lightning_attack.models.exported import ExportedModel


class Net(nn.Module):
    """A network whose logits are changed."""

    def __init__(self, change=lambda z: z, classes=6, stride=1):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.change = nn.Conv2d(3, classes, 3, stride, padding=1), change

    def forward(self, x):
        return self.change(self.layer(x))


def photo(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def last(z):
    return z.permute(0, 2, 3, 1)


@pytest.mark.parametrize(("classes", "stride"), [(6, 1), (6, 4), (4, 4), (16, 1), (1, 1), (1, 4)])
@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_classes_last_are_seen(classes, stride, size):
    """(B, 4, 4, 4) of 16 x 16 images and (B, 16, 16, 16) can be both; another shape of images tells."""
    for change, where in ((last, True), (lambda z: z, False)):
        model = SegmentationModel(Net(change, classes, stride))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            logits = freeze(model)(photo(2, 3, *size))
        expected = freeze(SegmentationModel(Net(classes=classes, stride=stride)))
        expected._classes_last = False
        assert model._classes_last is where
        assert torch.equal(logits, expected(photo(2, 3, *size)))


def test_what_cannot_be_told_is_said():
    def of_one_size(z):
        assert z.shape[-2:] == (16, 16)
        return z

    model = freeze(SegmentationModel(Net(of_one_size, 16), name="net"))
    with pytest.warns(UserWarning, match=r"'net' returned \(1, 16, 16, 16\) .*first or last cannot be seen"):
        model(photo(1, 3, 16, 16))


def test_a_binary_network_has_two_classes(tmp_path):
    z, images = Net(classes=1), photo(2, 3, 9, 12)
    labels = (photo(2, 9, 12) > 0.5).long()
    model = freeze(SegmentationModel(z, num_classes=1, name="net"))
    logits = model(images)
    assert (model.num_classes, logits.shape[1]) == (2, 2)
    assert torch.equal(logits.argmax(1), (z(images)[:, 0] > 0).long())
    by_hand = F.binary_cross_entropy_with_logits(z(images)[:, 0], labels.float())
    torch.testing.assert_close(F.cross_entropy(logits, labels), by_hand)
    assert Ensemble([model, Net(classes=1)])(images).shape[1] == 2
    assert ClassMap(model, [[1], [0]])(images)[:, 0].equal(logits[:, 1])
    export_model(model, str(tmp_path / "model.pt2"), classes=("background", "thing"))
    again = freeze(ExportedModel(str(tmp_path / "model.pt2")))
    assert torch.equal(again(images), logits)
    assert again.classes == ("background", "thing")


Named = namedtuple("Named", ["loss", "logits"])


def test_a_named_tuple_is_read_by_its_names():
    assert SegmentationModel(Net(lambda z: Named(z.sum(), z)))(photo(1, 3, 8, 8)).shape == (1, 6, 8, 8)


def test_several_maps_are_said_once():
    model = freeze(SegmentationModel(Net(lambda z: [z, -z]), name="net"))
    with pytest.warns(UserWarning, match="'net' returns 2 maps of logits; the first is taken"):
        model(photo(1, 3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(photo(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda z: z.argmax(1, keepdim=True), r"returned \(2, 1, 8, 12\) int64"),
        (lambda z: z.transpose(2, 3), "logits of 12 x 8 for an input of 8 x 12"),
        (lambda z: {"pred": z}, r"returned dict with the keys 'pred' \(2, 6, 8, 12\)"),
    ],
)
def test_what_cannot_be_read(change, says):
    with pytest.raises(ModelError, match=says) as error:
        SegmentationModel(Net(change), name="net")(photo(2, 3, 8, 12))
    assert len(str(error.value).splitlines()) == 2


def test_what_is_no_network():
    with pytest.raises(ModelError, match="given: NoneType"):
        as_segmentation_model(None)


@pytest.mark.parametrize("change", [lambda z: z[:, :1], last, lambda z: {"out": z}, lambda z: (z, z)])
def test_a_bare_network_is_told_of_the_wrapper(change):
    images, labels = photo(2, 3, 8, 12), torch.zeros(2, 8, 12, dtype=torch.int64)
    with pytest.raises(AttackError, match="SegmentationModel"):
        pgd(steps=1)(Net(change), images, labels)
    pgd(steps=1)(SegmentationModel(Net(change)), images, labels)  # with it, it works


def test_a_prepared_network_is_told_of_the_wrapper():
    network = Net(lambda z: {"out": z}).eval().requires_grad_(False)
    with pytest.raises(TypeError, match=r"returned dict; .*SegmentationModel"):
        prepare(network, kind="eager")(photo(1, 3, 8, 8))

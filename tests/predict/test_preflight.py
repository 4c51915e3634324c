"""A source that cannot be attacked is found before the first photo; one that looks wrong is named."""

import pytest
import torch
from torch import nn

from lightning_attack.attacks import NoAttack, fgsm
from lightning_attack.models import ClassMap, ModelError, SegmentationModel, TrainedModel
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.preflight import check_attackable


class Around(nn.Module):
    """A network around a small one."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.change = nn.Conv2d(3, 4, 3, padding=1), change

    def forward(self, images):
        return self.change(self.inner, images)


def without_gradient(inner, images):
    with torch.no_grad():
        return inner(images)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_gradient, "no gradient reaches the image through 'net'"),
        (lambda inner, images: inner(images.detach()).detach(), "no gradient reaches the image through 'net'"),
        (lambda inner, images: nn.functional.one_hot(inner(images).argmax(1), 4).movedim(-1, 1).float(), "no gradient"),
        (lambda inner, images: inner((images * 255).round() / 255), "is zero everywhere"),
        (lambda inner, images: inner((images > 0.5).float() * images.sum() * 0), "is zero everywhere"),
        (lambda inner, images: inner(torch.zeros_like(images)), "do not depend on the image"),
    ],
)
def test_networks_that_cannot_be_attacked(change, says):
    network = SegmentationModel(Around(change))
    if says == "do not depend on the image":  # frozen, as in a run, it has nothing to take a gradient of
        network.requires_grad_(True)
    with pytest.raises(ModelError, match=says):
        check_attackable(network, "net", (8, 8))


def test_the_same_in_python():
    """Where the module is built, for whoever builds it; what only scores images of others needs no gradient."""
    with pytest.raises(ModelError, match="no gradient reaches the image through 'around'"):
        AttackModule(Around(without_gradient), fgsm())
    AttackModule(Around(without_gradient), NoAttack())
    module = AttackModule(Around(lambda inner, images: inner(images).softmax(1)), fgsm())
    assert [doubt.kind for doubt in module.doubts] == ["probabilities"]


def test_one_class_and_a_binary_network():
    with pytest.raises(ModelError, match="'net' has one class, which no attack can change"):
        check_attackable(ClassMap(nn.Conv2d(3, 4, 1), [[0, 1]]), "net", (8, 8))
    module = AttackModule(nn.Conv2d(3, 1, 1), fgsm())
    assert module.num_classes == 2
    with pytest.raises(ModelError, match=r"2 classes, but the data has 1 \(thing\); name the background too, first"):
        module.check_classes(("thing",))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda inner, images: inner(images).softmax(1),
            "lie in [0, 1] and sum to 1: they look like probabilities after a soft",
        ),
        (lambda inner, images: inner(images).sigmoid(), "lie in [0, 1]: they look like probabilities after a sigmoid"),
        (lambda inner, images: nn.functional.dropout(inner(images), 0.5, True), "another result for the same image"),
    ],
)
def test_networks_that_look_wrong(change, says):
    (found,) = check_attackable(SegmentationModel(Around(change)).eval(), "net", (8, 8))
    assert says in found.message


@pytest.mark.parametrize("name", ["scenes_deeplabv3plus", "scenes_fpn", "scenes_segformer"])
def test_nothing_is_said_of_good_networks(name):
    network = TrainedModel(f"embedded:{name}").eval().requires_grad_(False)
    assert check_attackable(network, name, (64, 64)) == []
    assert all(weight.grad is None for weight in network.parameters())


def test_a_random_target_is_named():
    """Not only the source: a target with dropout in its forward differs by chance between clean and adversarial."""
    target = Around(lambda inner, images: nn.functional.dropout(inner(images), training=True))
    module = AttackModule(nn.Conv2d(3, 4, 1), fgsm(), targets={"theirs": target})
    assert [(doubt.network, doubt.kind) for doubt in module.doubts] == [("theirs", "not_repeatable")]


def test_logits_elsewhere_and_without_their_border():
    with pytest.raises(ModelError, match=r"on the device meta for an image on cpu\ntake moves to a device"):
        AttackModule(Around(lambda inner, images: inner(images).to("meta")), fgsm())
    with pytest.warns(UserWarning, match="56 x 56 for an input of 64 x 64: are its convolutions without padding"):
        AttackModule(Around(lambda inner, images: inner(images)[..., 4:-4, 4:-4]), fgsm())


def test_advice_where_classes_differ_in_number():
    """What can be done: one more class is left out, many are grouped; both by a ClassMap."""
    with pytest.raises(ModelError, match=r"has 5 classes, .* has 4; is one more of its classes void, .* ClassMap"):
        AttackModule(nn.Conv2d(3, 4, 1), fgsm(), targets={"theirs": nn.Conv2d(3, 5, 1)})
    with pytest.raises(ModelError, match=r"has 150 classes, .* has 4; .* by the groups of ClassMap"):
        AttackModule(nn.Conv2d(3, 4, 1), fgsm(), targets={"theirs": nn.Conv2d(3, 150, 1)})

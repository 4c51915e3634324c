"""`ClassMap`: probabilities of groups add up, gradients flow, what is out of range is named."""

import math

import pytest
import torch
from torch import nn

from lightning_attack.attacks import bim, cospgd, sea, segpgd, transegpgd
from lightning_attack.models import ClassMap, ModelError, SegmentationModel

GROUPS = [[3], [0, 2], [], [5, 1, 4]]


def network(classes=6, known=True):
    torch.manual_seed(0)
    inner = nn.Conv2d(3, classes, 3, padding=1)
    return SegmentationModel(inner, classes if known else None, mean=(0.5,) * 3, std=(0.25,) * 3, name="six")


def photo(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("groups", [GROUPS, dict(enumerate(GROUPS)), {3: [5, 1, 4], 0: [3], 1: [2, 0]}])
def test_probabilities_of_a_group_add_up(groups):
    source, images = network(), photo(2, 3, 5, 7)
    p = source(images).softmax(1)
    found = ClassMap(source, groups)(images).softmax(1)
    assert found.shape == (2, 4, 5, 7)
    torch.testing.assert_close(found[:, 0], p[:, 3])
    torch.testing.assert_close(found[:, 1], p[:, 0] + p[:, 2])
    torch.testing.assert_close(found[:, 3], p[:, 5] + p[:, 1] + p[:, 4])
    assert found[:, 2].abs().max() == 0


def test_one_class_keeps_its_logit():
    source, images = network(), photo(1, 3, 4, 4)
    model = ClassMap(source, [[4], [1]])
    assert torch.equal(model(images), source(images)[:, [4, 1]])
    assert (model.name, model.num_classes) == ("six", 2)
    assert ClassMap(source, [[4], [1]], name="mine").name == "mine"


def test_unmapped_classes_are_left_out_or_the_rest():
    source, images = network(), photo(1, 3, 4, 4)
    p = source(images).softmax(1)
    left_out = ClassMap(source, [[0], [1]])(images).softmax(1)
    torch.testing.assert_close(left_out[:, 0], p[:, 0] / (p[:, 0] + p[:, 1]))
    rest = ClassMap(source, {0: [0], 1: [1, 5]}, rest=0)(images).softmax(1)
    torch.testing.assert_close(rest[:, 0], p[:, 0] + p[:, 2] + p[:, 3] + p[:, 4])
    own = ClassMap(source, {0: [0], 1: [1, 5]}, rest=2)(images).softmax(1)
    torch.testing.assert_close(own[:, 2], p[:, 2] + p[:, 3] + p[:, 4])


def test_classes_without_source():
    model = ClassMap(network(), [[0], [1]], num_classes=21)
    logits = model(photo(1, 3, 4, 4))
    assert logits.shape[1] == 21
    assert logits.isfinite().all()
    assert logits.half().isfinite().all()
    assert set(logits.argmax(1).unique().tolist()) <= {0, 1}
    assert (logits[:, 2:].exp() == 0).all()


def test_gradient_is_shared_by_probability():
    class Given(nn.Module):
        def forward(self, x):
            return x

    logits = torch.tensor([math.log(1.0), math.log(3.0), 5.0]).view(1, 3, 1, 1).requires_grad_()
    ClassMap(Given(), [[0, 1]])(logits).sum().backward()
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([0.25, 0.75, 0.0]))


@pytest.mark.parametrize("preset", [bim, segpgd, cospgd, transegpgd, sea])
def test_attacks_live_with_classes_without_source(preset):
    model, images = ClassMap(network(), GROUPS), photo(2, 3, 8, 8)
    labels = torch.arange(128).view(2, 8, 8) % 4  # also the class that is never predicted
    adversarial = preset(eps="8/255", steps=6)(model, images, labels, [0, 1])
    assert adversarial.isfinite().all()
    assert (adversarial - images).abs().max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"groups": [[0], [6]]},
            "source class 6 of target class 1 is out of range: network 'six' has 6 classes, 0 to 5",
        ),
        ({"groups": [[0], [-1]]}, "source class -1 of target class 1 is out of range"),
        ({"groups": [[0, 1], [2, 1]]}, "source class 1 stands in the groups of target classes 0 and 1"),
        ({"groups": [[1, 1]]}, "source class 1 stands in the groups of target classes 0 and 0"),
        ({"groups": []}, "at least one target class"),
        ({"groups": {3: []}}, "at least one target class"),
        ({"groups": {3: [0]}, "num_classes": 3}, "target class 3 is out of range: num_classes=3 means 0 to 2"),
        ({"groups": {-1: [0]}}, "target class -1 is out of range"),
        ({"groups": [[0]], "num_classes": 1, "rest": 1}, "target class 1 is out of range"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ModelError, match=message):
        ClassMap(network(), **arguments)


def test_network_that_does_not_say_its_classes_is_checked_at_the_first_image():
    model = ClassMap(network(known=False), [[0], [6]])
    with pytest.raises(ModelError, match="source class 6 of target class 1 is out of range"):
        model(photo(1, 3, 4, 4))

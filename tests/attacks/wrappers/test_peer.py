"""`Peer`: attacks of torchattacks on the networks and data of this project."""

import json

import pytest
import torch

from lightning_attack.attacks.wrappers.peer import Peer
from tests.attacks.toys import (
    BALL,
    CLASSES,
    PIXELS,
    STEP,
    STEPS,
    curved,
    half_right,
    pgd,
    scene,
)


@pytest.fixture
def _peers():
    pytest.importorskip("torchattacks", reason="optional")


PGD_LIKE_OURS = {"eps": "8/255", "alpha": STEP, "steps": STEPS, "random_start": False}


@pytest.mark.usefixtures("_peers")
@pytest.mark.parametrize("targeted", [False, True])
def test_peer_is_our_bim(targeted):
    model, (images, labels) = curved(), scene(1, 64, 64, ignored=0)
    labels = half_right(model, images, labels)
    theirs = Peer("torchattacks.PGD", PGD_LIKE_OURS)(model, images, labels, [1], targeted=targeted)
    assert torch.equal(theirs, pgd()(model, images, labels, [1], targeted=targeted))
    assert not torch.equal(theirs, images)


@pytest.mark.usefixtures("_peers")
def test_peer_with_ignored_pixels_region_and_seeds():
    peer = Peer("torchattacks.PGD", {"eps": "8/255", "steps": 3})
    model, (images, labels) = curved(), scene(3, 16, 12)
    labels[2] = 255
    region = torch.rand(labels.shape, generator=torch.Generator().manual_seed(5)) < 0.7
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    together = peer(lambda x: model(x), images, labels, [5, 6, 7], region=region)
    assert torch.equal(torch.rand(1), expected), "the global generator is put back"
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.equal(peer(model, images[one], labels[one], [5 + i], region=region[one])[0], together[i])
    assert torch.equal(together[2], images[2])
    outside = ~region[:, None].expand_as(images)
    assert torch.equal(together[outside], images[outside])
    assert BALL.size(together - images).max() <= PIXELS + 1e-9
    assert not torch.equal(together[0], peer(model, images[:1], labels[:1], [9], region=region[:1])[0])
    plain = peer(model, images, labels, [5, 6, 7])
    hidden = torch.where((labels == 255)[:, None], 100 * torch.arange(CLASSES).view(-1, 1, 1), 0)
    assert torch.equal(peer(lambda x: model(x) + hidden[:1], images[:1], labels[:1], [5])[0], plain[0])
    assert json.loads(json.dumps(peer.settings())) == {
        "class": "Peer",
        "name": "torchattacks_pgd",
        "attack": "torchattacks.PGD",
        "settings": {"eps": 8 / 255, "steps": 3},
    }


@pytest.mark.usefixtures("_peers")
@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        ("torchattack.PGD", {}, "must be torchattacks. and the name of a class"),
        ("torchattacks.PDG", {}, "no such attack; the nearest are .*PGD"),
        ("torchattacks.MultiAttack", {}, "no such attack"),
        ("torchattacks.PGD", {"step": 3}, "unexpected keyword argument 'step'; settings are eps, alpha, steps"),
        ("torchattacks.PGD", {"model": 3}, "the model is given by the run"),
        ("torchattacks.PGD", {"eps": "8/0"}, "eps='8/0': must be a number above 0"),
    ],
)
def test_peer_errors(attack, settings, message):
    with pytest.raises(ValueError, match=message):
        Peer(attack, settings)


@pytest.mark.usefixtures("_peers")
def test_peer_without_a_targeted_mode():
    images, labels = scene(1, 4, 4)
    peer = Peer("torchattacks.PIFGSM")
    assert not peer.targetable
    with pytest.raises(ValueError, match="torchattacks_pifgsm cannot be targeted"):
        peer(curved(), images, labels, targeted=True)


def test_peer_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchattacks", None)
    with pytest.raises(ValueError, match=r"pip install --no-deps torchattacks==3.5.1"):
        Peer("torchattacks.PGD")

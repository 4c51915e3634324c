"""Bit for bit against torchattacks 3.5.1, an independent implementation.

torchattacks takes the mean of the loss over batch and pixels, we take the sum over each image: B, H and W are powers of
two, so that the two gradients differ by an exact factor.
"""

import pytest
import torch

from lightning_attack.attacks import bim, di_fgsm, fgsm, mi_fgsm, ni_fgsm, pgd, ti_fgsm
from lightning_attack.attacks.input_transforms.base import InputDiversity
from lightning_attack.attacks.random import Draws
from tests.attacks.toys import PIXELS, curved, half_right, scene, share_of_differences

torchattacks = pytest.importorskip("torchattacks", reason="the independent implementation is optional")

STEP, STEPS = 2 / 255, 6
COMMON = {"eps": PIXELS, "step_size": STEP, "steps": STEPS}
THEIRS = {"eps": PIXELS, "alpha": STEP, "steps": STEPS}


def setting(batch=2):
    model = curved()
    images, labels = scene(batch, 64, 64, ignored=0)
    return model, images, half_right(model, images, labels)


def test_pgd_with_random_start(monkeypatch):
    model, images, labels = setting()
    start = Draws([3, 4]).uniform("start", (3, 64, 64), -PIXELS, PIXELS).double()
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(start))
    theirs = torchattacks.PGD(model, **THEIRS, random_start=True)(images, labels)
    ours = pgd(**COMMON)(model, images, labels, seeds=[3, 4])
    assert torch.equal(ours, theirs)
    assert share_of_differences(ours, bim(**COMMON)(model, images, labels)) > 0.01


@pytest.mark.parametrize("ours", [bim(**COMMON), pgd(**COMMON, random_start=False)], ids=["bim", "pgd"])
def test_steps_from_the_clean_image(ours):
    model, images, labels = setting()
    theirs = torchattacks.PGD(model, **THEIRS, random_start=False)(images, labels)
    assert torch.equal(ours(model, images, labels), theirs)
    assert share_of_differences(theirs, fgsm(eps=PIXELS)(model, images, labels)) > 0.01


def test_fgsm():
    model, images, labels = setting()
    ours = fgsm(eps=PIXELS)(model, images, labels)
    assert torch.equal(ours, torchattacks.FGSM(model, eps=PIXELS)(images, labels))
    assert share_of_differences(ours, bim(**COMMON)(model, images, labels)) > 0.01


@pytest.mark.parametrize("decay", [1.0, 0.7])
@pytest.mark.parametrize(
    ("preset", "peer"), [(mi_fgsm, torchattacks.MIFGSM), (ni_fgsm, torchattacks.NIFGSM)], ids=["mi", "ni"]
)
def test_momentum(preset, peer, decay):
    model, images, labels = setting()
    ours = preset(**COMMON, decay=decay)(model, images, labels)
    assert torch.equal(ours, peer(model, **THEIRS, decay=decay)(images, labels))
    assert share_of_differences(ours, bim(**COMMON)(model, images, labels)) > 0.01


def test_momentum_and_look_ahead_differ():
    model, images, labels = setting()
    mi, ni = mi_fgsm(**COMMON)(model, images, labels), ni_fgsm(**COMMON)(model, images, labels)
    assert share_of_differences(mi, ni) > 0.01


@pytest.mark.parametrize(("decay", "prob"), [(0.0, 1.0), (1.0, 0.5)])
def test_input_diversity(monkeypatch, decay, prob):
    # One image: torchattacks draws one box for the whole batch.
    model, images, labels = setting(batch=1)
    draws, draws_of_coins = Draws([5]), Draws([5])
    boxes = [InputDiversity(scale=0.9, prob=1.0).boxes(64, 64, draws)[0] for _ in range(STEPS)]
    coins = [draws_of_coins.uniform_on_host("diversity coin") for _ in range(STEPS)]
    assert len({box.height for box in boxes}) > 1
    assert {coin < prob for (coin,) in coins} == ({True} if prob == 1 else {True, False})
    # Its order: size, top, left, coin. Size and place are drawn even where the coin says no.
    numbers, tosses = iter([n for box in boxes for n in (box.height, box.top, box.left)]), iter(coins)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", lambda low, high, size, dtype: torch.tensor([next(numbers)], dtype=dtype))
        patch.setattr(torch, "rand", lambda size: torch.tensor(next(tosses)))
        peer = torchattacks.DIFGSM(model, **THEIRS, decay=decay, resize_rate=0.9, diversity_prob=prob)
        theirs = peer(images, labels)
    assert next(numbers, None) is None
    assert next(tosses, None) is None
    ours = {
        undo: di_fgsm(**COMMON, decay=decay, scale=0.9, prob=prob, undo=undo)(model, images, labels, seeds=[5])
        for undo in (False, True)
    }
    assert torch.equal(ours[False], theirs)
    assert share_of_differences(theirs, bim(**COMMON)(model, images, labels)) > 0.01
    assert share_of_differences(theirs, ours[True]) > 0.01


@pytest.mark.parametrize(("decay", "size", "nsig"), [(0.0, 15, 3), (1.0, 5, 2)])
def test_translation_invariance(decay, size, nsig):
    model, images, labels = setting()
    peer = torchattacks.TIFGSM(model, **THEIRS, decay=decay, len_kernel=size, nsig=nsig, diversity_prob=0.0)
    peer.stacked_kernel = peer.stacked_kernel.double()
    ours = ti_fgsm(**COMMON, decay=decay, kernel_size=size, nsig=nsig)(model, images, labels)
    assert torch.equal(ours, peer(images, labels))
    assert share_of_differences(ours, bim(**COMMON)(model, images, labels)) > 0.01

"""For which shapes of images the default engine rewrites networks: by counts of what will come, and by nothing else."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer

from lightning_attack.attacks import FunctionAttack, NoAttack, pgd, vmi_fgsm
from lightning_attack.common.windows import Windows
from lightning_attack.data import Scene, SegmentationDataModule, SegmentationDataset
from lightning_attack.engine import BACKWARD_PRICE, FORWARD_PRICE, Work
from lightning_attack.models import Ensemble, SegmentationModel, worth
from lightning_attack.models.acceleration import FastNetworks
from lightning_attack.models.worth import SHAPES, WORTH_REWRITING, Expected, Worth
from lightning_attack.predict.module import AttackModule
from lightning_attack.predict.passes import backward_passes, expected_passes


def part(operators=10, values=100.0):
    network = SegmentationModel(torch.nn.Conv2d(3, 2, 1)).eval()
    network.__dict__["_work"] = {(64, 64): Work(operators, values)}
    return network


def images(height, width):
    return torch.empty(1, 3, height, width, device="meta")


def decides(photos, attack=20.0, scoring=2.0):
    """A `Worth` for these photos, by shape."""
    found = Worth((64, 64))
    found.expect(Expected(photos, lambda: attack, scoring))
    return found


@pytest.mark.parametrize("price", [FORWARD_PRICE, BACKWARD_PRICE])
def test_it_pays_from_a_number_of_photos_on(price):
    network, passes = part(), 2.0
    enough = int(np.ceil(price * 10 / 100 / passes / (300 * 400)))
    for count, expected in ((enough - 1, False), (enough, True)):
        found = decides({(300, 400): count}, attack=2.0)
        with found.attacking(images(300, 400) if price == BACKWARD_PRICE else None):
            assert found(network, images(300, 400)) == expected
            assert not found(part(operators=20), images(300, 400)), "twice as much work to rewrite"


def test_small_images_never_pay():
    """Calling operators takes their time, and a rewritten network calls as many."""
    found, network = decides({(100, 63): 10**6, (100, 64): 10**6}), part()
    assert [found(network, images(100, width)) for width in (63, 64)] == [False, True]


def test_modules_that_share_a_network_each_decide_for_themselves(monkeypatch):
    shared = SegmentationModel(torch.nn.Conv2d(3, 2, 1)).eval()
    monkeypatch.setattr(worth, "count_growth", lambda *_: Work(10, 100.0))
    first, second = FastNetworks([shared], None, "float32"), FastNetworks([shared], "fused", "float32")
    photos, enough = images(300, 400), Expected({(300, 400): 10**6}, lambda: 20.0, 2.0)
    assert shared.is_worth is None, "the second has fused for all"
    first.expect(enough)
    assert shared.is_worth(photos)
    first.expect(Expected({(300, 400): 1}, lambda: 0.01, 0.01))
    assert not shared.is_worth(photos), "a run this small counts nothing, though another has counted"
    second.expect(enough)
    assert shared.is_worth is None


def test_what_is_not_known():
    found = Worth((64, 64))
    side = round(WORTH_REWRITING**0.5)
    assert [found(part(), images(side, width)) for width in (side - 1, side)] == [False, True]
    assert not decides({(300, 400): 10**6})(part(), images(301, 400)), "no such photo: as a defence makes it"


def test_shapes_that_would_push_each_other_out_are_rewritten_where_one_photo_pays():
    photos = {(300, 400 + number): 10**4 for number in range(SHAPES + 1)}
    found = decides(photos)
    assert [found(part(), images(*shape)) for shape in photos] == [False] + [True] * SHAPES  # the largest are kept
    for passes, expected in ((5, False), (200, True)):
        found = decides(photos, attack=passes)
        with found.attacking(images(300, 400)):
            assert found(part(), images(300, 400)) == expected


def test_enlarged_images_count_as_those_that_they_are_made_of():
    found = decides({(300, 400): 10})
    with found.attacking(images(300, 400)):
        assert found(part(), images(450, 600))
        assert not found(part(values=1.0), images(450, 600))
    assert not found(part(), images(450, 600))


def test_passes_are_those_of_each_member():
    single, two = torch.nn.Conv2d(3, 2, 1), Ensemble([torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(3, 2, 1)])
    assert [expected_passes(vmi_fgsm(steps=3, samples=4), source)() for source in (single, two)] == [15, 15]
    assert expected_passes(NoAttack(), single)() == 0
    broken = FunctionAttack(lambda model, images, labels: images / model.no_such_thing, name="broken")
    assert expected_passes(broken, single)() == 1
    assert backward_passes(broken) is None

    def on_smaller(model, images, labels):
        for side in (13, 7):
            images = images.detach().requires_grad_()
            torch.autograd.grad(model(F.interpolate(images, size=(side, 9))).mean(), images)
        return images

    assert backward_passes(FunctionAttack(on_smaller)) == 2


class Photos(SegmentationDataset):
    classes = ("a", "b")

    def __init__(self, *sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def photo_size(self, index):
        return self.sizes[index]

    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (*self.sizes[index], 3), np.uint8)
        return Scene(pixels, pixels[..., 0] % 2, str(index))


def network(seed):
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1)]
    return SegmentationModel(torch.nn.Sequential(*layers), name=f"net_{seed}")


@pytest.fixture
def cheap(monkeypatch):
    """As if rewriting cost no more than ten passes of one photo of 16 x 16."""
    monkeypatch.setattr(worth, "WORTH_COUNTING", 0)
    for name in ("FORWARD_PRICE", "BACKWARD_PRICE"):
        monkeypatch.setattr(worth, name, 0)
    monkeypatch.setattr(Work, "repays", lambda work, pixels, passes, price: passes * pixels >= 10 * 16 * 16)


def rewritten(monkeypatch, photos, skip=(), **settings):
    """What networks are rewritten for in a run, in the order in which that happens."""
    said = []
    monkeypatch.setattr(AttackModule, "_say", lambda module, status: said.append(status))
    module = AttackModule(network(0), pgd(steps=4), {"other": network(1)}, probe_size=(16, 16), **settings)
    data = SegmentationDataModule(photos)
    data.skip(skip)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, inference_mode=False,
                      enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
    trainer.predict(module, data, return_predictions=False)
    return [status.partition(" ")[2] for status in said if status.startswith("rewriting")]


def test_a_run_rewrites_what_its_photos_pay_for(monkeypatch, cheap):
    run = partial(rewritten, monkeypatch)
    few = Photos((16, 16), (16, 20), (20, 16), (16, 16), (16, 20), (16, 16))
    # 3 x 4, 2 x 4 and 1 x 4 backward passes, and 6, 4 and 2 passes of each network in scoring.
    assert run(few) == ["'net_0' for 16 x 16 pixels", "'net_0' for 16 x 20 pixels"]
    assert run(few, skip=[0, 3]) == ["'net_0' for 16 x 20 pixels", "'net_0' for 16 x 16 pixels"], "a run that goes on"
    assert run(Photos(*few.sizes[:2], *few.sizes[2:4])) == []
    both = [f"'net_{number}' for 16 x {width} pixels" for number in (0, 0, 1) for width in (16, 20)]
    assert sorted(run(few, curve_every=1)) == sorted(both)
    assert sorted(run(few, windows=Windows(8))) == [f"'net_{number}' for 8 x 8 pixels" for number in (0, 0, 1)]


def test_sizes_of_a_run(monkeypatch):
    photos = Photos(*[(16, 16)] * 3, (8, 32), (16, 16))
    assert SegmentationDataModule(photos).image_sizes() == {(16, 16): 4, (8, 32): 1}
    assert SegmentationDataModule(photos, size=16, fit="long_side").image_sizes() == {(16, 16): 4, (4, 16): 1}
    assert SegmentationDataModule(photos, size_divisor=32).image_sizes() == {(32, 32): 5}
    assert SegmentationDataModule(photos, size=9, limit=2).image_sizes() == {(9, 9): 2}
    monkeypatch.setattr("lightning_attack.data.datamodule.MOST_SIZES", 2)
    assert SegmentationDataModule(photos).image_sizes() == {(16, 16): 5}, "the first and the last stand for all"
    monkeypatch.setattr(Photos, "photo_size", SegmentationDataset.photo_size)
    assert SegmentationDataModule(photos).image_sizes() is None

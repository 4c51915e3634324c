"""What images cost by their size: networks that resize take as long for small ones as for large ones."""

import torch.nn.functional as F
from torch import nn

from lightning_attack.attacks import pgd
from lightning_attack.common.windows import Windows
from lightning_attack.data.scenes import Share
from lightning_attack.engine import FORWARD_PRICE, Work
from lightning_attack.models import FastNetworks, SegmentationModel
from lightning_attack.models.size_costs import SizeCost, size_cost
from lightning_attack.models.worth import Expected
from lightning_attack.predict.module import AttackModule


class Resizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Conv2d(3, 64, 3, padding=1)

    def forward(self, images):
        logits = self.network(F.interpolate(images, (96, 96)))[:, :8]
        return F.interpolate(logits, images.shape[-2:])


class Fails(nn.Module):
    def forward(self, images):
        raise ValueError


def model(network, name="net"):
    return SegmentationModel(network, 8, (0.5,) * 3, (0.25,) * 3, name=name)


def test_a_network_that_resizes_costs_most_whatever_the_size():
    cost = size_cost([(model(Resizes()), 5)], (64, 64))
    assert cost.fixed == 5 * 96 * 96 * (3 + 64)
    assert 0 < 64 * 64 * cost.per_pixel < 0.3 * cost.fixed
    assert size_cost([(model(Fails()), 5)], (64, 64)) == SizeCost(0, 1)


def test_a_network_that_resizes_is_not_taken_for_a_large_one():
    """What it computes for a small image does not grow with the pixels: large photos do not make rewriting pay."""
    part = model(Resizes())
    FastNetworks([part], None, "float32").expect(Expected({(320, 320): 10}, lambda: 10.0, 2))
    work = part.__dict__["_work"][64, 64]
    assert work.fixed == 96 * 96 * (3 + 64)
    taken_for_large = Work(work.operators, work.values + work.fixed / 64**2)
    assert taken_for_large.repays(320 * 320, 10 * 2, FORWARD_PRICE)
    assert not work.repays(320 * 320, 10 * 2, FORWARD_PRICE)


def test_shares_are_of_what_an_attack_costs():
    """Three large photos and many small ones: by pixels one process would get one photo, another all small ones."""
    sizes = 3 * [(300, 300)] + 30 * [(30, 30)]
    windows = Windows((64, 64), 0.5)
    costs = {
        network: AttackModule(model(made), pgd(steps=3), windows=given).image_costs([*sizes, (0, 0)])
        for network, made, given in (("resizes", Resizes(), None), ("plain", nn.Conv2d(3, 8, 1), None),
                                     ("windows", nn.Conv2d(3, 8, 1), windows))
    }  # fmt: skip
    assert costs["plain"][0] == 100 * costs["plain"][-2]
    assert costs["windows"][0] == len(windows.grid(300, 300)) * costs["windows"][-2]
    assert all(found[-1] == 0 for found in costs.values())
    for network, fewest in (("resizes", 8), ("plain", 1)):
        shares = [[*Share(range(33), costs[network][:-1], num_replicas=4, rank=rank)] for rank in range(4)]
        assert min(map(len, shares)) == fewest, network

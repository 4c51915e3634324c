"""`fingerprint`: equal for equal networks, and for no others."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lightning_attack.attacks import fgsm
from lightning_attack.common.network_hash import are_comparable
from lightning_attack.models import (
    JPEG,
    ClassMap,
    Defended,
    Ensemble,
    ExportedModel,
    SegmentationModel,
    Smoothed,
    TorchScriptModel,
    TrainedModel,
)
from lightning_attack.models import fingerprint as room
from lightning_attack.models.fingerprint import earlier_fingerprint, fingerprint, narrower_fingerprint
from lightning_attack.predict.module import AttackModule
from tests.callbacks.small_runs import model


def test_networks_that_differ_in_settings_only_are_others():
    first, second = model(1), model(2)
    ensembles = [Ensemble([first, second], [1, 3]), Ensemble([first, second], [3, 1]),
                 Ensemble([first, second], [3, 1], by="softmax")]  # fmt: skip
    wide = SegmentationModel(deepcopy(first.network), mean=(0.5,) * 3, std=(0.25,) * 3, stride=8, name="net")
    prints = [fingerprint(network) for network in (*ensembles, first, second, wide)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(model(1)) == fingerprint(first.train())


def renamed(network, name):
    """A copy in which all networks go by another name, and say other things of themselves that change no result."""
    copy = deepcopy(network)
    for part in copy.modules():
        if isinstance(part, SegmentationModel):
            part.name, part.classes, part.metadata = name, ("a", "b"), {"name": name}
            if hasattr(part, "recipe"):
                part.recipe = part.recipe | {"name": name}
        part.name_or_path = f"/moved/{name}"  # as transformers notes it in networks
    return copy


def test_what_a_network_is_called_is_no_part_of_it():
    first, second = model(1), model(2)
    kinds = [first, Ensemble([first, second]), Defended(first, [JPEG(50)]), ClassMap(first, [[0, 1], [2]]),
             Smoothed(first), TrainedModel("embedded:scenes_fpn")]  # fmt: skip
    for network in kinds:
        assert fingerprint(network) == fingerprint(renamed(network, "other")), network.name
        assert earlier_fingerprint(network) != earlier_fingerprint(renamed(network, "other")), "it had names in it"
    assert len({*map(fingerprint, kinds)}) == len(kinds)
    assert earlier_fingerprint(model(1, "mine")) == earlier_fingerprint(first, "mine") != earlier_fingerprint(first)
    layer = nn.Conv2d(3, 2, 1).requires_grad_(False)
    layer.weight[:], layer.bias[:] = 0.5, 0
    network = SegmentationModel(layer, 2, name="net")
    assert earlier_fingerprint(network) == "17ece9d8e5517e83", "as it stands in folders of runs of 0.1"
    assert earlier_fingerprint(Defended(network, [JPEG(50)])) == "302eb9d7853d0872"


def test_an_engine_is_no_part_of_it():
    layer = nn.Conv2d(3, 2, 1).requires_grad_(False)
    layer.weight[:], layer.bias[:] = 0.5, 0
    layer.weight[0] = -0.5
    now, earlier = set(), {}
    for engine in (None, "fused", "eager"):
        first, second = (SegmentationModel(deepcopy(layer), 2, name="net") for _ in range(2))
        module = AttackModule(first, fgsm(), {"jpeg": Defended(second, [JPEG(50)])}, engine=engine)
        now.add(tuple(module.settings()["targets"].values()))
        earlier[engine] = {tuple(settings["targets"].values()) for settings in module.earlier_settings()}
    assert len(now) == 1
    # As they stand in folders of runs: of 0.1, and of the version after it.
    of_first, of_second = ("44a06947c6e654bc", "e43848686797659f"), ("v2:82c37d78e95aabcd", "v2:26a7a25d5dc1de74")
    assert {of_first, of_second} <= earlier[None]
    of_first, of_second = ("bf151b8ebdd0b51c", "d4b7fcfea500656a"), ("v2:d3bae1008bbab5c4", "v2:376ecf3c416cbe27")
    assert {of_first, of_second} <= earlier["fused"]
    assert earlier["eager"] == earlier["fused"]


class Resizing(nn.Module):
    """A network that sees the images in another size."""

    def __init__(self, size):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.size = nn.Conv2d(3, 2, 1), size

    def forward(self, x):
        small = nn.functional.interpolate(x, size=self.size)
        unused = small.sum() + 1  # noqa: F841
        return nn.functional.interpolate(self.layer(small) * torch.tensor(2.0), size=x.shape[-2:])


class Kept(nn.Module):
    """A network that keeps values in other ways than as weights and plain settings."""

    def __init__(self, mean=0.0, act=nn.functional.relu, scale=1.0, table=(1.0, 2.0)):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.mean, self.act, self.table = torch.tensor([mean]), act, np.array(table)
        self._scale, self._calls = scale, 0

    def forward(self, x):
        self._calls += 1
        self._cached = torch.arange(x.shape[-1])
        return self.act(self.layer(x - self.mean)) * self._scale


def test_what_modules_of_the_user_keep_counts(monkeypatch):
    def mark(**kept):
        torch.manual_seed(0)
        return Kept(**kept)

    monkeypatch.setattr(room, "is_users", lambda file: file == __file__)
    network = mark()
    before = fingerprint(network)
    assert before.startswith("v4:")
    assert before == fingerprint(mark())
    network(torch.zeros(1, 3, 4, 4))
    assert fingerprint(network) == before, "what it counted and cached is no part of it"
    for change in ({"mean": 0.9}, {"act": nn.functional.gelu}, {"act": partial(torch.clamp, min=0.5)}, {"scale": 2.0},
                   {"table": (1.0, 3.0)}):  # fmt: skip
        assert fingerprint(mark(**change)) != before, change
        assert narrower_fingerprint(mark(**change)) == narrower_fingerprint(network), "earlier versions did not see it"
    assert fingerprint(nn.Conv2d(3, 2, 1)).startswith("v3:")


class Shown(nn.Module):
    """What TorchScript computes around one and the same layer."""

    def __init__(self, layer, mean, mirrored):
        super().__init__()
        self.layer, self.mean, self.mirrored = layer, mean, mirrored

    def forward(self, x):
        x = x - self.mean
        return self.layer(x.flip(1) if self.mirrored else x) * torch.tensor(2.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["script", "trace"])
def test_of_torchscript_the_program_counts(kind, tmp_path):
    layer, found = nn.Conv2d(3, 2, 1), {}
    for name, mean, mirrored in (("a", 0.0, False), ("again", 0.0, False), ("mean", 0.9, False), ("bgr", 0.0, True)):
        network = Shown(layer, mean, mirrored).eval()
        made = torch.jit.script(network) if kind == "script" else torch.jit.trace(network, torch.zeros(1, 3, 4, 4))
        torch.jit.save(made, str(tmp_path / f"{name}.ts"))
        found[name] = fingerprint(TorchScriptModel(str(tmp_path / f"{name}.ts")))
    assert found["a"] == found["again"]
    assert len({*found.values()}) == 3
    assert all(mark.startswith("v4:") for mark in found.values())


def test_of_exported_networks_the_graph_counts(tmp_path):
    """What differs in nothing but the size that images are brought to has other results, and the same weights."""
    for name, size in (("small", 6), ("large", 12)):
        program = torch.export.export(Resizing(size), (torch.zeros(1, 3, 8, 8),))
        torch.export.save(program, tmp_path / f"{name}.pt2")
    small, again, large = (ExportedModel(str(tmp_path / f"{name}.pt2")) for name in ("small", "small", "large"))
    assert earlier_fingerprint(small, named=False) == earlier_fingerprint(large, named=False)
    assert fingerprint(small) == fingerprint(again) == fingerprint(renamed(small, "other")) != fingerprint(large)
    assert are_comparable(fingerprint(small), fingerprint(large))
    assert not are_comparable(fingerprint(small), earlier_fingerprint(large, named=False)), "clean predictions decide"


class InPlace(nn.Module):
    """A network that changes a class of its logits in place, where no other node needs what comes of it."""

    def __init__(self, factor):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.factor = nn.Conv2d(3, 2, 1), factor

    def forward(self, x):
        logits = self.layer(x)
        logits[:, 0].mul_(self.factor)
        return logits


def test_what_a_graph_changes_in_place_counts(tmp_path):
    found = set()
    for factor in (1.0, -3.0):
        program = torch.export.export(InPlace(factor), (torch.zeros(1, 3, 8, 8),))
        torch.export.save(program, tmp_path / "net.pt2")
        found.add(fingerprint(ExportedModel(str(tmp_path / "net.pt2"))))
    assert len(found) == 2

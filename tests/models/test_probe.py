"""Networks that take one batch only give the results of others; what stands in the way of a probe is said."""

import warnings

import pytest
import torch
from torch import nn

from lightning_attack.attacks import pgd
from lightning_attack.models import (
    ClassMap,
    ExportedModel,
    ModelError,
    SegmentationModel,
    TorchScriptModel,
    TrainedModel,
)
from lightning_attack.models.probe import probe
from lightning_attack.predict.module import AttackModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*TorchScript:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*at a time:UserWarning"),
]


class Net(nn.Module):
    """Written for one batch, or for any."""

    def __init__(self, batch=None):
        super().__init__()
        torch.manual_seed(0)
        self.batch, self.layer = batch, nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x):
        batch = len(x) if self.batch is None else self.batch
        return self.layer(x).reshape(batch, 6, -1).softmax(1).reshape(batch, 6, *x.shape[2:]) * 3 - 1


def scene(count):
    random = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(count, 3, 16, 16, generator=random),
        "mask": torch.randint(6, (count, 16, 16), generator=random),
        "index": list(range(count)),
        "name": [str(number) for number in range(count)],
    }


def made(kind, batch, folder):
    if kind == "python":
        return Net(batch)
    if kind == "script":
        torch.jit.save(torch.jit.trace(Net(batch), torch.rand(batch, 3, 16, 16)), folder / "net.pt")
        return TorchScriptModel(str(folder / "net.pt"))
    torch.export.save(torch.export.export(Net(batch), (torch.rand(batch, 3, 16, 16),)), folder / "net.pt2")
    return ExportedModel(str(folder / "net.pt2"))


@pytest.fixture(scope="module")
def expected():
    return AttackModule(Net(), pgd(steps=3), probe_size=(16, 16)).predict_step(scene(5), 0)


@pytest.mark.parametrize("engine", ["eager", "fused"])
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("kind", ["python", "script", "exported"])
def test_fixed_batches(kind, batch, engine, tmp_path, expected):
    module = AttackModule(made(kind, batch, tmp_path), pgd(steps=3), engine=engine, probe_size=(16, 16))
    output = module.predict_step(scene(5), 0)
    torch.testing.assert_close(output.adversarial, expected.adversarial, rtol=0, atol=1e-6)
    assert output.passes == expected.passes


def test_a_network_inside_another(tmp_path, expected):
    source = ClassMap(made("exported", 2, tmp_path), [[k] for k in range(6)])
    output = AttackModule(source, pgd(steps=3), probe_size=(16, 16)).predict_step(scene(5), 0)
    torch.testing.assert_close(output.adversarial, expected.adversarial, rtol=0, atol=1e-6)


def test_the_price_is_said_once(tmp_path):
    network, images = made("exported", 1, tmp_path), torch.rand(3, 3, 16, 16)
    with pytest.warns(UserWarning, match=r"takes 1 image at a time: .*slower.*Dim.DYNAMIC"):
        network(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(images)


def test_a_fixed_size_is_said(tmp_path):
    with pytest.raises(ModelError, match=r"exported for images of size \[16, 16\], not \[64, 64\]; set data.size"):
        AttackModule(made("exported", 1, tmp_path), pgd())


def test_free_sizes_stay_free(tmp_path):
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(nn.Conv2d(3, 6, 1), (torch.rand(2, 3, 16, 16),), dynamic_shapes=({0: free, 2: free},))
    torch.export.save(program, tmp_path / "net.pt2")
    network = ExportedModel(str(tmp_path / "net.pt2"))
    assert not network.has_limited_batches
    assert network(torch.rand(1, 3, 40, 16)).shape == (1, 6, 40, 16)
    with pytest.raises(ModelError, match=r"for images of size \[1 to any, 16\], not \[16, 40\]"):
        network(torch.rand(1, 3, 16, 40))


def test_images_that_change_each_other():
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Conv2d(3, 6, 1))
    with pytest.warns(UserWarning, match="gives an image other logits beside another image"):
        module = AttackModule(network, pgd(steps=2))
    alone = module.predict_step({key: value[1:2] for key, value in scene(3).items()}, 0)
    together = module.predict_step(scene(3), 0)
    assert torch.equal(together.adversarial[1:2], alone.adversarial)


class LastIn(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (LastIn(), r"takes images \(B, H, W, 3\): wrap it .* x.permute\(0, 2, 3, 1\)"),
        (nn.Conv2d(3, 6, 1).half(), "its weights are float16, images are float32: convert it"),
        (nn.Conv2d(3, 6, 1).bfloat16(), "its weights are bfloat16"),
        (nn.Conv2d(3, 6, 1).double(), "its weights are float64, images are float32: convert it"),
    ],
)
def test_what_stands_in_the_way(network, says):
    with pytest.raises(ModelError, match=says):
        probe(SegmentationModel(network), "net", (16, 24))


def test_networks_of_the_package_take_all_batches():
    network = TrainedModel("embedded:scenes_fpn")
    AttackModule(network, pgd())
    assert not network.has_limited_batches

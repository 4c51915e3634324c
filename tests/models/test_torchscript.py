"""`TorchScriptModel`: scripted, traced and frozen files equal the network; the deprecation is said."""

import re

import pytest
import torch
from torch import nn

from lightning_attack.models import ModelError, SegmentationModel, TorchScriptModel, freeze

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:FutureWarning")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 5, 1)
        self.norm, self.drop = nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.norm.running_mean.fill_(0.1)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


def saved(path, kind):
    network = Small().eval()
    script = torch.jit.trace(network, torch.rand(1, 3, 16, 16)) if kind == "traced" else torch.jit.script(network)
    torch.jit.save(torch.jit.freeze(script) if kind == "frozen" else script, path)
    return str(path), network


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen"])
def test_equals_the_network(tmp_path, kind):
    path, network = saved(tmp_path / "small.pt", kind)
    with pytest.warns(FutureWarning, match=r"'.*small.pt' is TorchScript, which PyTorch has deprecated.*torch.export"):
        model = TorchScriptModel(path, mean=(0.5,) * 3, std=(0.25,) * 3, stride=8)
    freeze(model)
    eager = freeze(SegmentationModel(network, mean=(0.5,) * 3, std=(0.25,) * 3, stride=8))
    for size in ((1, 3, 33, 57), (4, 3, 16, 16)):
        images = torch.rand(size, generator=torch.Generator().manual_seed(0)).requires_grad_()
        gradients = [torch.autograd.grad(m(images).square().sum(), images)[0] for m in (model, eager)]
        torch.testing.assert_close(model(images), eager(images))
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().sum() > 0
    assert (model.name, model.num_classes) == ("small", 5)


@pytest.mark.filterwarnings("ignore:.*is TorchScript:FutureWarning")
def test_file_is_checked(tmp_path):
    path, network = saved(tmp_path / "small.pt", "scripted")
    (tmp_path / "garbage.pt").write_bytes(b"garbage")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 8, 8),)), tmp_path / "other.pt2")
    for name in ("garbage.pt", "weights.pt", "other.pt2"):
        with pytest.raises(ModelError, match=re.escape(name) + "' is not a file of torch.jit.save"):
            TorchScriptModel(str(tmp_path / name))
    with pytest.raises(ModelError, match=r"no file 'nowhere.pt'"):
        TorchScriptModel("nowhere.pt")
    with pytest.raises(ModelError, match="'small' returned 5 classes, but num_classes is 4"):
        TorchScriptModel(path, num_classes=4)(torch.rand(1, 3, 16, 16))

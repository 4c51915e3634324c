"""Exported programs run on another device than the one they were exported on. Shown without values, as on CUDA."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_attack.models import ExportedModel
from tests.fake_cuda import on_cuda

ZOO = Path(__file__).parents[2].parent / "shared" / "zoo"


class Tied(nn.Module):
    """A network with all that `torch.export` ties to a device."""

    def __init__(self):
        super().__init__()
        self.layer, self.constant = nn.Conv2d(3, 2, 1), torch.tensor([1.0, 2.0])

    def forward(self, x):
        rows = torch.arange(x.shape[2], device=x.device) + torch.linspace(0, 1, 4, device="cpu")
        y = self.layer(x) + self.constant[:, None, None] + rows[:, None] + torch.tensor([2.0])
        y = y + torch.zeros(1) + torch.ones(3)[:1] + torch.full((1,), 2.0) + torch.eye(1) + torch.scalar_tensor(3.0)
        y = y.to("cpu").to(torch.float64).to("cpu", torch.float32) + torch.zeros_like(y) + y.new_ones(1)
        with torch.autocast("cpu", enabled=False):
            y = y + torch.arange(1.0)
        with torch.no_grad():
            return y + torch.ones(1)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    path, images = tmp_path_factory.mktemp("tied") / "tied.pt2", torch.rand(2, 3, 4, 5)
    program = torch.export.export(Tied(), (images,))
    torch.export.save(program, path)
    return path, images, program


def test_what_is_tied_to_a_device_follows_the_images(tied):
    path, images, program = tied
    model = ExportedModel(str(path))
    assert torch.equal(model(images), program.module()(images))
    torch.testing.assert_close(model.double()(images.double()), model.float()(images))
    assert on_cuda(ExportedModel(str(path)), images).device.type == "cuda"


def test_the_fake_device_finds_what_does_not_follow(tied):
    _, images, program = tied
    with pytest.raises((RuntimeError, AssertionError), match="device"):
        on_cuda(program.module(), images)


@pytest.mark.skipif(not ZOO.is_dir(), reason="no exported networks in ../shared")
@pytest.mark.parametrize("path", sorted(ZOO.glob("*.pt2")), ids=lambda path: path.stem)
def test_programs_of_others(path):
    assert on_cuda(ExportedModel(str(path)), torch.empty(1, 3, 65, 70)).device.type == "cuda"

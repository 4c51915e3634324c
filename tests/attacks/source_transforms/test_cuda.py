"""Source transforms on CUDA, without a card: graphs of CUDA's operators on the CPU, and without values."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from lightning_attack import attacks
from lightning_attack.attacks import Draws, SourceTransform
from lightning_attack.attacks.source_transforms import kept, traced
from lightning_attack.attacks.source_transforms.source import TransformedSource
from lightning_attack.engine import trace
from lightning_attack.models import SegmentationModel, freeze
from tests.attacks.toys import Rich, curved
from tests.engine.test_cuda import attention_of_cuda
from tests.fake_cuda import CUDA, FakeCuda, OnTheHost, pretended

TRANSFORMS = [
    kind for kind in (getattr(attacks, name) for name in attacks.__all__)
    if isinstance(kind, type) and issubclass(kind, SourceTransform) and kind is not SourceTransform
]  # fmt: skip
IMAGES = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))


class Attending(nn.Module):
    """A network with all that source transforms change; torch's own attention is another operator on CUDA."""

    def __init__(self):
        super().__init__()
        self.rest, self.norm = Rich(curved(torch.float32)), nn.BatchNorm2d(3)

    def forward(self, x):
        pixels = 4 * self.norm(x).flatten(2).mT[:, None].unflatten(2, (-1, 4)).flatten(1, 2)
        attended = F.scaled_dot_product_attention(pixels.roll(1, 1), pixels.flip(3), pixels.tanh())
        return self.rest(x + 0.3 * attended.flatten(1, 2).mT.reshape(x.shape))


def network():
    return freeze(SegmentationModel(copy.deepcopy(Attending())))


def passed(model, transform):
    """The logits, and a gradient."""
    changed, images = TransformedSource(model, [transform]), IMAGES.clone().requires_grad_()
    logits = changed(images, Draws([1, 2]), 0, IMAGES.flip(-1) if changed.needs_clean else None)
    return logits.detach(), torch.autograd.grad(logits.square().mean(), images)[0]


@pytest.fixture(scope="module")
def expected():
    model = network()
    return {kind: passed(model, kind()) for kind in TRANSFORMS}


def test_graphs_of_cuda_give_the_same(expected, monkeypatch):
    model = network()
    with pretended(model), monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attention_of_cuda)
        of_network = trace.traced

        def of_cuda(*given, **more):
            with _disable_current_modes():
                return of_network(*given, **more | {"device": CUDA})

        patch.setattr(trace, "traced", of_cuda)
        with OnTheHost():
            found = {kind: passed(model, kind()) for kind in TRANSFORMS}
    graphs = kept.kept(model.network)._graphs
    names = {str(node.target) for made in graphs.values() for node in made.module.graph.nodes}
    assert {"aten._scaled_dot_product_efficient_attention.default", "aten.cudnn_batch_norm.default"} <= names
    assert len(graphs) == 1 + len(TRANSFORMS)
    for kind, both in found.items():
        for one, other in zip(both, expected[kind], strict=True):
            assert (one - other).norm() < 1e-4 * other.norm(), kind.__name__


def test_no_tensor_of_the_host_is_among_those_of_the_device(monkeypatch):
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_of_cuda)
    monkeypatch.setattr(traced, "_alike", lambda found, expected: found.device == expected.device == CUDA)
    model = network()
    with FakeCuda(lambda tensor: False) as mode, torch.no_grad():
        model, images = mode.move(model), torch.empty(IMAGES.shape, device=CUDA)
        monkeypatch.setattr(trace, "FakeTensorMode", lambda **_: mode)
        for kind in TRANSFORMS:
            changed = TransformedSource(model, [kind()])
            clean = torch.empty_like(images) if changed.needs_clean else None
            assert changed(images, Draws([1, 2], CUDA), 0, clean).device == CUDA, kind.__name__

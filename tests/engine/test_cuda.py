"""The engine for CUDA, without a card: graphs of CUDA's operators run on the CPU, or without values."""

import gc

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from lightning_attack.engine.fixed_order import OPERATORS
from lightning_attack.engine.folding import fold
from lightning_attack.engine.graphs import UnsupportedError, calls
from lightning_attack.engine.internals import BATCH_NORMS
from lightning_attack.engine.recorded import Constants, RecordedProgram, Recordings
from lightning_attack.engine.trace import trace_forward
from lightning_attack.models import ExportedModel, SegmentationModel, TrainedModel, freeze
from tests.engine.compare import apart, both, exact, noise
from tests.engine.recorder import FakeRecorder
from tests.engine.refused import REFUSED
from tests.engine.test_networks import EMBEDDED, ENCODERS, ZOO
from tests.fake_cuda import CUDA, FakeCuda, OnTheHost, aten, pretended


def architecture(arch):
    torch.manual_seed(0)
    settings = {"dynamic_img_size": True} if arch == "dpt" else {}
    network = smp.create_model(arch, encoder_name=ENCODERS[arch], encoder_weights=None, classes=5, **settings)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 96))
    return SegmentationModel(network, 5, stride=32)


def of_torchvision():
    torch.manual_seed(0)
    build = torchvision.models.segmentation.lraspp_mobilenet_v3_large
    return SegmentationModel(build(weights=None, weights_backbone=None, num_classes=5), 5)


NETWORKS = {name: lambda name=name: TrainedModel(f"embedded:{name}") for name in EMBEDDED}
NETWORKS |= {arch: lambda arch=arch: architecture(arch) for arch in ("dpt",)}
NETWORKS |= {"lraspp": of_torchvision}
NETWORKS |= {path.stem: lambda path=path: ExportedModel(str(path)) for path in ZOO.glob("*dm05_voc_257.pt2")}


def attention_of_cuda(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """As torch chooses it on most cards, where the choice needs a card."""
    keeps = torch.is_grad_enabled() and query.requires_grad
    given = query, key, value, attn_mask, keeps, dropout_p, is_causal
    return aten._scaled_dot_product_efficient_attention(*given, scale=scale)[0]


def program(network, images, bfloat16=False, recorder=None, device=CUDA):
    shared = Constants(), Recordings(recorder or FakeRecorder())
    return RecordedProgram(network, tuple(images.shape), bfloat16, *shared, device)


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_of_cuda(name, monkeypatch):
    network = freeze(NETWORKS[name]())
    images = noise(1, 3, 65, 90)
    expected, gradient = exact(network, images)
    with pretended(network), monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attention_of_cuda)
        made = program(network, images)
        halves = made.halves()
    graphs = [halves.forward.graph, halves.resized.graph, halves.back.graph]
    assert not [node for graph in graphs for node in graph.nodes if "batch_norm" in str(node.target)]
    calls_of = [node for graph in graphs for node in graph.nodes if node.op == "call_function"]
    names = {node.target.overloadpacket.__name__ for node in calls_of if hasattr(node.target, "overloadpacket")}
    assert names & REFUSED <= set(OPERATORS), "not exact to the last bit on CUDA"
    with OnTheHost():
        found, its = both(made, images)
    assert apart(found, expected) < 1e-5
    assert apart(its, gradient) < 1e-2
    with FakeCuda():  # one tensor of the host among those of the device is an error
        logits, *kept = halves.forward(torch.empty(images.shape, device=CUDA))
        small = halves.resized(torch.empty(logits.shape, device=CUDA))
        back = halves.back([*kept, small])
    assert {one.device for one in (logits, small, back)} == {CUDA}
    assert (logits.shape, back.shape) == (expected.shape, images.shape)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("operator", [aten.cudnn_batch_norm, aten.miopen_batch_norm])
def test_batch_normalisations_of_gpus_fold(operator, training):
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_(), norm.running_var.uniform_(0.1, 2), nn.init.uniform_(norm.weight)
    network = freeze(nn.Sequential(layer, norm))
    graph = trace_forward(network, (2, 3, 8, 8))
    (node,) = calls(graph.graph, *BATCH_NORMS)
    images, weight, bias, mean, variance, *_ = node.args
    node.target, node.args = operator.default, (images, weight, bias, mean, variance, training, 0.1, norm.eps)
    if training:
        assert calls(fold(graph).graph, *BATCH_NORMS)
    else:
        torch.testing.assert_close(fold(graph)(noise(2, 3, 8, 8)), network(noise(2, 3, 8, 8)))


class Masked(nn.Module):
    """A small network whose backward pass needs all that graphs keep: results, masks, places of maxima, images."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = F.max_pool2d(self.norm(self.first(x * x.sigmoid())).relu(), 2)
        return F.interpolate(self.last(F.silu(x)), scale_factor=2, mode="bilinear")


IMAGES = noise(2, 3, 8, 12)


def masked():
    torch.manual_seed(0)
    return freeze(Masked())


@pytest.fixture
def recorded():
    """A program whose passes are recorded, and what records them."""
    recorder = FakeRecorder()
    made = program(masked(), IMAGES, recorder=recorder, device=torch.device("cpu"))
    made.record(IMAGES)
    recorder.replayed = 0
    return made, recorder


def same(found, expected):
    return all(apart(a, b) < 1e-6 for a, b in zip(found, expected, strict=True))


def others(count=4):
    return [noise(2, 3, 8, 12, seed=seed + 1) for seed in range(count)]


def test_recorded_passes_are_the_networks(recorded):
    made, recorder = recorded
    results = [both(made, images) for images in others()]
    assert recorder.replayed == 8
    # After all of them: what was returned is not the memory of the recording.
    assert all(same(found, both(masked(), images)) for found, images in zip(results, others(), strict=True))


def test_a_second_forward_pass_before_the_first_backward_pass(recorded):
    """As ensembles, windows and SVRE do: the second pass runs step by step, and neither spoils the other."""
    made, recorder = recorded
    given = [images.requires_grad_() for images in others()]
    logits = [made(images) for images in given]
    assert recorder.replayed == 1
    for images, found in reversed([*zip(given, logits, strict=True)]):
        weights = noise(*found.shape, seed=1) - 0.4
        gradient = torch.autograd.grad(found, images, weights)[0]
        assert same((found.detach(), gradient), both(masked(), images.detach()))
    assert recorder.replayed == 2
    both(made, IMAGES)
    assert recorder.replayed == 4


def test_a_pass_that_may_come_back_keeps_its_place(recorded):
    made, recorder = recorded
    images, expected = IMAGES.clone().requires_grad_(), both(masked(), IMAGES)
    logits = made(images)
    weights = noise(*logits.shape, seed=1) - 0.4
    torch.autograd.grad(logits, images, weights, retain_graph=True)
    both(made, others()[0])
    again = torch.autograd.grad(logits, images, weights)[0]
    assert same((logits.detach(), again), expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(logits, images, weights)
    assert recorder.replayed == 3
    both(made, others()[0])
    assert recorder.replayed == 5


def test_a_pass_without_a_backward_pass_gives_its_place_back(recorded):
    made, recorder = recorded
    logits = made(IMAGES.clone().requires_grad_())
    both(made, IMAGES)
    assert recorder.replayed == 1
    del logits
    gc.collect()
    both(made, IMAGES)
    assert recorder.replayed == 3


def test_another_stream_and_passes_without_a_gradient_are_not_recorded(recorded):
    made, recorder = recorded
    with torch.no_grad():
        assert apart(made(IMAGES), masked()(IMAGES)) < 1e-6
    recorder.current = "another"
    assert same(both(made, IMAGES), both(masked(), IMAGES))
    assert not recorder.replayed


def test_shapes_share_weights_and_one_pending_pass():
    shared, network = (Constants(), Recordings(FakeRecorder())), masked()
    large, small = (
        RecordedProgram(network, tuple(images.shape), False, *shared, torch.device("cpu"))
        for images in (IMAGES, IMAGES[:1])
    )
    assert {id(one) for one in large._graph.buffers()} == {id(one) for one in small._graph.buffers()}
    layouts = [one.is_contiguous(memory_format=torch.channels_last) for one in large._graph.buffers() if one.ndim == 4]
    assert layouts
    assert all(layouts)
    large.record(IMAGES)
    small.record(IMAGES[:1])
    recorder = shared[1].recorder
    recorder.replayed = 0
    pending = large(IMAGES.clone().requires_grad_())
    both(small, IMAGES[:1])
    assert recorder.replayed == 1, "recordings share memory"
    del pending


def test_parameters_may_be_moved_away(recorded):
    """As Lightning does after a run: a recording goes on reading the memory that it was made with."""
    network = masked()
    made = program(network, IMAGES, device=torch.device("cpu"))
    expected = both(made, IMAGES)
    for weight in (*network.parameters(), *network.buffers()):
        weight.data = torch.full_like(weight, torch.nan) if weight.is_floating_point() else weight.data
    assert same(both(made, IMAGES), expected)


def test_a_recording_that_gives_something_else_is_not_used():
    class Wrong(FakeRecorder):
        def __call__(self, work):
            results, _ = super().__call__(work)
            return results, lambda: None

    made = program(masked(), IMAGES, recorder=Wrong(), device=torch.device("cpu"))
    with pytest.raises(UnsupportedError, match="a recorded pass gives something else"):
        made.record(IMAGES)
    assert same(both(made, IMAGES), both(masked(), IMAGES))


def test_bfloat16(recorded):
    made = program(masked(), IMAGES, True, device=torch.device("cpu"))
    made.record(IMAGES)
    found, expected = both(made, IMAGES), both(masked(), IMAGES)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert 1e-4 < apart(found[0], expected[0]) < 2e-2
    assert 1e-4 < apart(found[1], expected[1]) < 5e-2

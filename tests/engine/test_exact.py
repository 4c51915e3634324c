"""`exact`: CUDA's operators that add in no fixed order are replaced by ones that give the same; shown on the CPU."""

import itertools
import os
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_attack.attacks import IterativeAttack, Linf, RandomAffine, pgd, transegpgd_mi_di_ti
from lightning_attack.attacks.objectives.base import CrossEntropy
from lightning_attack.engine import EngineError, check_exact, exact_on, float32_precision
from lightning_attack.engine.fixed_order import OPERATORS, fixed_order
from lightning_attack.models import SegmentationModel, TrainedModel, freeze
from lightning_attack.predict.cost import device_facts
from lightning_attack.predict.module import AttackModule
from tests.engine.recorder import pretend_card
from tests.engine.refused import REFUSED, refused
from tests.engine.test_cuda import program
from tests.engine.test_networks import EMBEDDED
from tests.fake_cuda import pretended

CUDA = torch.device("cuda")


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def both(function, inputs):
    """What a function of tensors gives, and the gradients."""
    inputs = [one.clone().requires_grad_() for one in inputs]
    result = function(*inputs)
    return [result.detach(), *torch.autograd.grad(result, inputs, noise(*result.shape))]


def resizes():
    sizes = [(1, 1), (2, 9), (5, 7), (16, 16), (11, 30)]
    for mode, corners, smooth in itertools.product(("bilinear", "bicubic"), (False, True), (False, True)):
        given = {"mode": mode, "align_corners": corners, "antialias": smooth}
        for before, size in itertools.product([(1, 1), (5, 7), (8, 3), (13, 1)], sizes):
            yield lambda x, size=size, given=given: F.interpolate(x, size=size, **given), [noise(2, 3, *before)]
        for scale, again in itertools.product([0.4, 1.3, 2.0, 3.7, (0.61, 2.5)], (None, True)):
            scaled = given | {"scale_factor": scale, "recompute_scale_factor": again}
            yield lambda x, scaled=scaled: F.interpolate(x, **scaled), [noise(2, 3, 7, 10)]


def pools():
    values, indices = F.max_pool2d(noise(2, 3, 8, 8), 2, return_indices=True)
    yield lambda x: F.max_unpool2d(x, indices, 2), [values]
    for pool, size, before in itertools.product(
        (F.adaptive_avg_pool2d, F.adaptive_max_pool2d), [(1, 2), (3, 3), (4, 5), (10, 20)], [(1, 1), (5, 7), (9, 13)]
    ):
        for shape in ((2, 3, *before), (3, *before)):
            yield lambda x, pool=pool, size=size: pool(x, size), [noise(*shape)]


def pads():
    for mode, padding in itertools.product(("reflect", "replicate"), [(1, 2, 3, 0), (0, 0, 1, 1), (4, 4, 2, 4)]):
        yield lambda x, mode=mode, padding=padding: F.pad(x, padding, mode=mode), [noise(2, 3, 5, 6)]


def grids():
    settings = itertools.product(("bilinear", "nearest"), ("zeros", "border", "reflection"), (False, True))
    for (mode, padding, corners), reach, size in itertools.product(settings, (0.5, 2.0), [(6, 7), (1, 5), (1, 1)]):
        images, grid = noise(2, 3, *size), noise(2, 5, 9, 2) * reach
        yield lambda x, g, given=(mode, padding, corners): F.grid_sample(x, g, *given), [images, grid]


@pytest.mark.parametrize("cases", [resizes, pools, pads, grids])
def test_operators_in_a_fixed_order_are_torchs_own(cases):
    for number, (function, inputs) in enumerate(cases()):
        expected = both(function, inputs)
        with fixed_order("CPU"):
            found = both(function, inputs)
        for one, other in zip(found, expected, strict=True):
            assert (one - other).abs().max() < 1e-10, number
        assert all(map(torch.equal, both(function, inputs), expected)), "torch's own are back"


def test_in_other_types_and_layouts():
    """Half precision sums in float32, and the layout is the one that torch's own has: compilers rely on it."""
    images = noise(2, 3, 6, 7).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    resized = F.interpolate(images, size=(13, 15), mode="bilinear")
    weights = torch.ones_like(resized)
    expected = torch.autograd.grad(resized, images, weights, retain_graph=True)[0]
    with fixed_order("CPU"), fixed_order("CPU"):
        (found,) = torch.autograd.grad(resized, images, weights)
    assert found.dtype == expected.dtype
    assert found.stride() == expected.stride()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_cudnn_has_a_grid_sample_of_its_own():
    images, grid = noise(2, 3, 6, 7), noise(2, 5, 9, 2)
    _, *expected = both(lambda x, g: F.grid_sample(x, g, align_corners=True), [images, grid])
    found = OPERATORS["cudnn_grid_sampler_backward"](images, grid, noise(2, 3, 5, 9))
    assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


def test_what_is_replaced_is_what_torch_refuses():
    assert set(OPERATORS) <= REFUSED


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch was built without CUDA")
@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_replaced_is_in_cuda(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "CUDA")


class Seen(TorchDispatchMode):
    """Notes the operators that torch would refuse."""

    def __enter__(self):
        self.names = set()
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if refused(func, args):
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def affine():
    return IterativeAttack(CrossEntropy(), Linf(8 / 255), 1, input_transforms=[RandomAffine()])


ATTACKS = {"pgd": lambda: pgd(steps=1), "views": lambda: transegpgd_mi_di_ti(steps=2), "affine": affine}
RUNS = [(name, "eager", "views") for name in EMBEDDED]
RUNS += [("scenes_fpn", "eager", "affine"), ("scenes_deeplabv3plus", "fused", "pgd")]


@pytest.mark.parametrize(("name", "engine", "attack"), RUNS)
def test_no_step_is_left_that_torch_refuses(name, engine, attack, monkeypatch):
    """Those of CUDA's graphs are in `test_cuda.py`; those of all presets in `test_synchronisation.py`."""
    if engine == "fused":
        recorder = pretend_card(monkeypatch)
    batch = {"image": noise(1, 3, 65, 90).sigmoid().float(), "index": torch.tensor([0])}
    made = [AttackModule(TrainedModel(f"embedded:{name}"), ATTACKS[attack](), engine=engine, exact=True) for _ in "ab"]
    expected = made[0].predict_step(batch, 0)
    with fixed_order("CPU"), Seen() as seen:
        found = made[1].predict_step(batch, 0)
    assert seen.names, "a resize, at least"
    assert seen.names <= set(OPERATORS)
    assert (found.adversarial == expected.adversarial).float().mean() > 0.99
    if engine == "fused":
        assert not recorder.recorded


def test_a_network_that_was_recorded_runs_step_by_step_with_exact(monkeypatch):
    recorder = pretend_card(monkeypatch)
    shared = SegmentationModel(nn.Conv2d(3, 2, 1))
    replayed = []
    for exact in (False, True):
        module = AttackModule(shared, pgd(steps=2), engine="fused", exact=exact)
        for number in range(2):
            module.predict_step({"image": torch.rand(1, 3, 8, 8), "index": torch.tensor([number])}, number)
        replayed.append(recorder.replayed)
    assert replayed[0] == replayed[1] > 0


def settings():
    table = torch._C._dispatch_dump("aten::upsample_bilinear2d_backward").splitlines()
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        any(line.startswith("CUDA: ") and "fixed_order.py" in line for line in table),
        float32_precision()["convolutions"],
    )


def test_on_a_cpu_nothing_changes(monkeypatch):
    batch = {"image": noise(2, 3, 65, 90).sigmoid().float(), "index": torch.tensor([0, 1])}
    found = []
    for _ in range(2):
        module = AttackModule(TrainedModel("embedded:scenes_fpn"), pgd(steps=2), engine="eager", exact=True)
        found.append(module.predict_step(batch, 0).adversarial)
        monkeypatch.setattr("lightning_attack.predict.module.exact_on", lambda device: nullcontext())
    assert torch.equal(*found)


def test_the_summary_says_what_exact_computed_in(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    found = [device_facts(CUDA, exact)["float32"]["convolutions"] for exact in (False, True)]
    assert found == ["tf32", "ieee"]


@pytest.mark.parametrize("warns", [False, True])
def test_settings_are_as_before_afterwards(warns, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(warns, warn_only=warns)
    try:
        before = settings()
        with exact_on(CUDA):
            assert settings() == (True, False, False, True, "ieee")
        assert settings() == before
        refusal = r"exact=true: put_.* deterministic implementation, so results would"
        with pytest.raises(EngineError, match=refusal), exact_on(CUDA):
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        assert settings() == before
        with exact_on(torch.device("cpu")):
            assert settings()[:4] == before[:4]
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_cannot_be_exact(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    check_exact("compiled", torch.device("cpu"))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with pytest.raises(EngineError, match="engine=compiled adds in no fixed order on CUDA; choose fused or eager"):
        check_exact("compiled", CUDA)
    check_exact(None, CUDA)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    images, grid = noise(1, 2, 4, 4).requires_grad_(), noise(1, 3, 3, 2)
    with fixed_order("CPU"), pytest.raises(EngineError, match="bicubic grid_sample has no deterministic gradient"):
        torch.autograd.grad(F.grid_sample(images, grid, "bicubic", align_corners=False).sum(), images)


class ManyOperators(nn.Module):
    """A network with most of what `fixed_order` replaces."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        x, places = F.max_pool2d(self.first(x).relu(), 2, return_indices=True)
        x = F.interpolate(F.adaptive_avg_pool2d(x, (3, 5)), size=(8, 16), mode="bicubic")
        x = F.pad(F.pad(x, (1, 1, 1, 1), mode="reflect"), (0, 0, 2, 1), mode="replicate")
        x = F.max_unpool2d(F.interpolate(x, size=(8, 16), mode="bilinear", antialias=True), places, 2)
        x = F.grid_sample(x, torch.linspace(-1, 1, 256, device=x.device).view(1, 8, 16, 2), align_corners=False)
        return F.interpolate(self.last(x), size=(16, 32), mode="bilinear")


def test_graphs_for_cuda_are_the_same_with_exact():
    """Told to be deterministic, torch itself would write resizing and padding out as lookups, and refuse unpooling."""
    network, found = freeze(SegmentationModel(ManyOperators())), []
    for device in (torch.device("cpu"), CUDA):
        with pretended(network), exact_on(device):
            halves = program(network, torch.empty(1, 3, 16, 32)).halves()
        graphs = halves.forward.graph, halves.resized.graph, halves.back.graph
        found.append([str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"])
    assert found[0] == found[1]
    names = {name.split(".")[1] for name in found[0] if name.startswith("aten.")}
    absent = {"_upsample_bicubic2d_aa_backward", "adaptive_max_pool2d_backward", "cudnn_grid_sampler_backward"}
    assert set(OPERATORS) - names == absent

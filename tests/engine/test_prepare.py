"""What a prepared network promises beside its results: the network stays what it was, and nothing gets lost."""

import copy
import gc
import pickle
import random
import shutil
import sys
import threading

import pytest
import torch
from torch import nn

from lightning_attack.engine import (
    EngineError,
    check_precision,
    compiled,
    float32_precision,
    full_float32,
    prepare,
    support,
    watch,
)
from lightning_attack.engine.prepare import RECORDED
from lightning_attack.engine.program import Program
from lightning_attack.engine.recorded import RecordedProgram
from tests.engine.compare import apart, both, noise, operators
from tests.engine.recorder import pretend_card
from tests.precisions import needs_bfloat16


def small():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 1)
    return nn.Sequential(*layers).eval().requires_grad_(False)


class Branching(nn.Module):
    def forward(self, x):
        return x * 2 if x.max() > 0.5 else x * 3


def reports(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("lightning_attack")]


def same(fast, network, images):
    return all(torch.equal(a, b) for a, b in zip(both(fast, images), both(network, images), strict=True))


def test_eager_is_the_network_itself():
    network = small()
    assert same(prepare(network, kind="eager"), network, noise(2, 3, 8, 8))


def test_the_network_is_left_alone():
    network = small()
    before, state = both(network, noise(2, 3, 8, 8)), copy.deepcopy(network.state_dict())
    fast = prepare(network)
    both(fast, noise(2, 3, 8, 8))
    assert fast.network is network
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(both(network, noise(2, 3, 8, 8)), before, strict=True))
    assert not list(fast.buffers(recurse=False))
    assert [name for name, _ in fast.named_parameters()] == [
        f"network.{name}" for name, _ in network.named_parameters()
    ]


class Stopping(nn.Module):
    """Subtracts the mean of each image without its gradient."""

    def forward(self, x):
        with torch.no_grad():
            mean = x.mean((1, 2, 3), keepdim=True)
        return x - mean


class StoppingALittle(nn.Module):
    """Most of what it computes has a gradient: what has none makes less than a hundredth of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.stopped, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.head(self.wide(x).relu() + 0.003 * self.stopped(x).detach())


class Rounded(torch.autograd.Function):
    """Rounds to 8 bits; the gradient passes straight through."""

    @staticmethod
    def forward(_, x):
        return (255 * x).round() / 255

    @staticmethod
    def backward(_, gradient):
        return gradient


class Straight(nn.Module):
    def forward(self, x):
        return Rounded.apply(x)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda network: (network, noise(2, 3, 8, 8).double()), "images are torch.float64"),
        (
            lambda network: (network[0].requires_grad_(True) and network, noise(2, 3, 8, 8)),
            "weights require a gradient",
        ),
        (lambda _: (Branching().eval(), noise(2, 3, 8, 8)), "depends on the images' values"),
        (lambda network: (nn.Sequential(Stopping(), network).eval(), noise(2, 3, 8, 8)), "its gradients would differ"),
        (lambda network: (nn.Sequential(Straight(), network).eval(), noise(2, 3, 8, 8)), "its gradients would differ"),
        (lambda _: (StoppingALittle().eval().requires_grad_(False), noise(2, 3, 8, 8)), "its gradients would differ"),
    ],
)
def test_what_it_cannot_do_the_network_does_with_one_line(change, reason, caplog):
    network, images = change(small())
    network = network.double() if images.dtype == torch.float64 else network
    fast = prepare(network)
    for _ in range(3):
        assert same(fast, network, images)
    (line,) = reports(caplog)
    assert reason in line


def test_bfloat16_knows_no_more_of_stopped_gradients(caplog, monkeypatch):
    monkeypatch.setattr(support, "_lacks_bfloat16", lambda device: "")
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)  # it runs on processors without bfloat16, too
    network, images = nn.Sequential(Stopping(), small()).eval(), noise(2, 3, 8, 8)
    assert same(prepare(network, kind="compiled", precision="bf16"), network, images)
    (line,) = reports(caplog)
    assert "in float32: its gradients would differ" in line
    both(prepare(small(), kind="compiled", precision="bf16"), images)
    assert len(reports(caplog)) == 1


class Standardized(nn.Module):
    def forward(self, x):
        return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.SiLU()])
def test_an_image_that_gives_nan_is_not_scored(activation, caplog):
    """The library's ReLU makes 0 of NaN, and a black image comes after the one on which graphs were compared."""
    layers = nn.Conv2d(3, 4, 1), Standardized(), nn.Conv2d(4, 4, 3), activation, nn.Conv2d(4, 5, 1)
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    fast = prepare(network, noise(1, 3, 8, 8))
    with torch.no_grad():
        assert fast(torch.zeros(1, 3, 8, 8)).isnan().all()
    assert both(fast, torch.zeros(1, 3, 8, 8))[0].isnan().all()
    assert not reports(caplog)


class Keeping(nn.Module):
    """Keeps a grid for images of one size, and another in a cache, as networks of transformers do."""

    def __init__(self):
        super().__init__()
        self.width, self.grids = 0, {}

    def forward(self, x):
        if self.width != x.shape[-1]:
            self.width, self.grid = x.shape[-1], torch.linspace(-1, 1, x.shape[-1])
        if x.shape not in self.grids:
            self.grids[x.shape] = torch.arange(x.shape[-2]).float()[:, None]
        return x * self.grids[x.shape] + self.grid


def test_networks_that_keep_what_depends_on_the_size(caplog):
    network = nn.Sequential(Keeping(), small()).eval()
    fast = prepare(network)
    for width in (8, 9, 8):
        found, expected = both(fast, noise(1, 3, 8, width)), both(network, noise(1, 3, 8, width))
        assert all(apart(one, other) < 1e-5 for one, other in zip(found, expected, strict=True))
    assert not reports(caplog)


def test_random_numbers_of_python_are_drawn_anew(caplog):
    class Drawing(nn.Module):
        def forward(self, x):
            return x * random.randint(1, 1000)

    fast = prepare(Drawing().eval())
    results = {float(fast(torch.ones(1, 3, 4, 4)).mean()) for _ in range(8)}
    assert len(results) > 4
    (said,) = reports(caplog)
    assert said.startswith("'Drawing' runs without the fused engine: its logits would differ by")


def test_a_broken_network_does_not_look_sound(caplog):
    network = small()
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] = torch.nan
    fast, images = prepare(network), noise(2, 3, 8, 8)
    assert network(images).isnan().any()
    assert torch.equal(fast(images).isnan(), network(images).isnan())
    assert reports(caplog)[0].endswith("its logits would be finite elsewhere than those of the network")


def test_training_and_autocast(caplog):
    network = small()
    fast = prepare(network)
    network[3].train()
    torch.manual_seed(1)
    expected = network(noise(2, 3, 8, 8))
    torch.manual_seed(1)
    assert torch.equal(fast(noise(2, 3, 8, 8)), expected)
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(noise(2, 3, 8, 8)).dtype == torch.bfloat16
    assert ["training mode" in line for line in reports(caplog)] == [True, False]


def test_hooks_inside_are_served_without_a_word(caplog):
    network, seen = small(), []
    fast = prepare(network)
    both(fast, noise(2, 3, 8, 8))
    hook = network[2].register_forward_hook(lambda _m, _i, output: seen.append(output))
    assert same(fast, network, noise(2, 3, 8, 8))
    assert len(seen) == 2
    hook.remove()
    both(fast, noise(2, 3, 8, 8))
    assert len(seen) == 2
    assert not reports(caplog)


@needs_bfloat16
def test_hooks_in_place_of_bfloat16_are_told(caplog):
    network = small()
    fast = prepare(network, precision="bf16")
    hook = network[2].register_forward_hook(lambda *_: None)
    images = noise(2, 3, 8, 8)
    assert same(fast, network, images)
    assert same(fast, network, images)
    (line,) = reports(caplog)
    assert line.startswith("'Sequential' runs without the fused engine, in float32: it has hooks")
    hook.remove()
    assert not same(fast, network, images)


def test_hooks_of_the_prepared_network_itself():
    fast, counted = prepare(small()), []
    fast.register_forward_pre_hook(lambda _m, given: counted.append(len(given[0])))
    both(fast, noise(2, 3, 8, 8))
    assert counted == [2]


def test_other_weights_make_another_program():
    network, images = small(), noise(2, 3, 8, 8)
    fast = prepare(network)
    before = both(fast, images)[0]
    network.load_state_dict({name: value * 2 for name, value in network.state_dict().items()})
    found, gradient = both(fast, images)
    expected, expected_gradient = both(network, images)
    assert apart(found, before) > 0.1
    assert apart(found, expected) < 1e-6
    assert apart(gradient, expected_gradient) < 1e-6


def test_modules_in_place_of_others_are_seen():
    network, images = small(), noise(2, 3, 8, 8)
    fast = prepare(network)
    both(fast, images)
    hook = network[1].register_forward_hook(lambda *_: seen.append(1))
    network[2] = nn.Softplus().eval()
    seen = []
    assert same(fast, network, images)
    assert len(seen) == 2, "hooks of the others are served still"
    hook.remove()
    for other in (nn.Softplus(beta=3), nn.Sequential(nn.Tanh(), nn.Sigmoid())):
        network[2] = other.eval()
        assert apart(both(fast, images)[0], both(network, images)[0]) < 1e-6
    assert fast._programs


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network[0].weight.data.mul_(2),
        lambda network: setattr(network[1], "eps", 1.0),
        lambda network: setattr(network[2], "max_val", 0.1),
    ],
)
def test_a_run_begins_with_the_network_as_it_is_now(change):
    network, images = small(), noise(2, 3, 8, 8)
    network[2] = nn.Hardtanh().eval()
    fast = prepare(network, images)
    before = both(fast, images)[0]
    fast.recheck()
    program = next(iter(fast._programs.values()))
    assert torch.equal(both(fast, images)[0], before)
    assert next(iter(fast._programs.values())) is program
    change(network)
    fast.recheck()
    assert apart(both(fast, images)[0], both(network, images)[0]) < 1e-6
    assert apart(before, both(network, images)[0]) > 1e-3


def test_images_that_need_no_gradient_keep_nothing():
    fast, images = prepare(small()), noise(2, 3, 8, 8)
    assert not fast(images).requires_grad
    with torch.no_grad():
        assert not fast(images.clone().requires_grad_()).requires_grad
    with torch.inference_mode():
        fast(images)
    assert both(fast, images)[1].abs().sum() > 0
    assert all(len(names) == 2 for names in operators(fast, images)[:2])


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiled(caplog):
    network, images = small(), noise(2, 3, 8, 8)
    found, gradient = both(prepare(network, kind="compiled"), images)
    expected, expected_gradient = both(network, images)
    assert apart(found, expected) < 1e-6
    assert apart(gradient, expected_gradient) < 1e-6
    assert not reports(caplog)


def test_on_cuda_passes_are_recorded(monkeypatch):
    """What can be said without such a device: the mode, and that results are copied out of the recording."""
    asked, result = {}, torch.zeros(1, 2, 4, 4)
    monkeypatch.setattr(compiled, "rewritten", lambda *given: given[-1])
    monkeypatch.setattr(torch, "compile", lambda graph, **options: asked.update(options) or (lambda images: result))
    program = compiled.CompiledProgram(small(), (1, 3, 8, 8), False, torch.device("cuda"))
    assert asked["mode"] == "reduce-overhead"
    assert program(noise(1, 3, 8, 8)) is not result
    program = compiled.CompiledProgram(small(), (1, 3, 8, 8), False, torch.device("cpu"))
    assert asked["mode"] is None
    assert program(noise(1, 3, 8, 8)) is result


def test_it_says_when_it_takes_long():
    said = []
    fast, images = prepare(small(), on_status=said.append), noise(2, 3, 8, 9)
    both(fast, images)
    both(fast, images)
    assert said[0] == "rewriting 'Sequential' for 8 x 9 pixels"
    assert said[1].startswith("'Sequential' for 8 x 9 pixels: ready after ")
    assert len(said) == 2
    with torch.no_grad():
        fast(images)
    assert len(said) == 4, "passes without a gradient are another graph"


def test_it_says_where_a_network_runs_as_it_is():
    said, images = [], noise(2, 3, 8, 9)
    prepare(small().double(), images.double(), on_status=said.append)
    prepare(small().train(), images, on_status=said.append)
    assert not said, "nothing is tried"
    prepare(Branching().eval(), images, on_status=said.append)
    assert said == ["rewriting 'Branching' for 8 x 9 pixels", "'Branching' for 8 x 9 pixels: runs as it is"]


def test_an_example_is_prepared_at_once():
    said, images = [], noise(2, 3, 8, 9)
    fast = prepare(small(), images, on_status=said.append)
    assert len(said) == 4, "two words for each of two graphs"
    both(fast, images)
    with torch.no_grad():
        fast(images)
    assert len(said) == 4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))])
def test_copies_make_graphs_of_their_own(copied, caplog):
    fast, images = prepare(small()), noise(2, 3, 8, 8)
    logits, gradient = both(fast, images)
    other = copied(fast)
    found, its = both(other, images)
    assert torch.equal(found, logits)
    assert torch.equal(its, gradient)
    assert other._programs, "the copy runs as the network is"
    assert other._packed is not fast._packed
    assert not reports(caplog)


def test_logits_that_are_all_zero_are_no_reason(caplog):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval().requires_grad_(False)
    network[0].bias.fill_(-9)
    fast, images = prepare(network), noise(1, 3, 4, 4)
    assert same(fast, network, images)
    assert not reports(caplog)


def test_without_a_compiler_the_network_runs_itself(caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: raising("no compiler"))
    network = small()
    fast = prepare(network, kind="compiled")
    for _ in range(2):
        assert same(fast, network, noise(2, 3, 8, 8))
    (line,) = reports(caplog)
    assert line.endswith("runs without the compiled engine: RuntimeError: no compiler")


def test_memory_that_is_short_is_the_callers_affair(monkeypatch):
    fast, images = prepare(small()), noise(2, 3, 8, 8)
    fast(images)
    monkeypatch.setattr(Program, "__call__", raising("DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(RuntimeError, match="can't allocate"):
        fast(images)


def raising(message):
    def function(*_):
        raise RuntimeError(message)

    return function


def test_many_shapes_keep_few_programs(caplog):
    fast = prepare(small())
    for height in range(4, 26):
        fast(noise(1, 3, height, 5))
    assert 1 < len(fast._programs) < 20
    assert not reports(caplog)


def test_an_image_does_not_see_its_batch():
    fast, images = prepare(small()), noise(3, 3, 9, 7)
    logits, gradient = both(fast, images, noise(3, 4, 9, 7))
    for row in range(3):
        alone, its = both(fast, images[row : row + 1], noise(3, 4, 9, 7)[row : row + 1])
        assert torch.allclose(alone[0], logits[row], rtol=1e-5, atol=1e-6)
        assert torch.allclose(its[0], gradient[row], rtol=1e-5, atol=1e-6)


def test_threads_get_what_one_would():
    fast, network = prepare(small()), small()
    found = {}

    def run(seed):
        found[seed] = both(fast, noise(2, 3, 8 + seed % 2, 8, seed=seed))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, results in found.items():
        for result, expected in zip(results, both(network, noise(2, 3, 8 + seed % 2, 8, seed=seed)), strict=True):
            assert apart(result, expected) < 1e-6


def test_no_second_derivative():
    fast = prepare(small())
    images = noise(1, 3, 8, 8).requires_grad_()
    gradient = torch.autograd.grad(fast(images).square().sum(), images, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    "settings", [{"kind": "quick"}, {"precision": "float16"}, {"kind": "eager", "precision": "bf16"}]
)
def test_unknown_settings(settings):
    with pytest.raises(ValueError, match=r"kind="):
        prepare(small(), **settings)


@pytest.fixture
def card(monkeypatch):
    """The CPU taken for a CUDA device, whose recordings are pretended."""
    return pretend_card(monkeypatch)


def batches(fast, *heights, steps=3):
    """Attack a batch of each height; returns whether all steps gave what the network gives."""
    right = []
    for height in heights:
        with fast.batch():
            for step in range(steps):
                images = noise(2, 3, height, 8, seed=step)
                found, expected = both(fast, images), both(small(), images)
                right.append(all(apart(a, b) < 1e-5 for a, b in zip(found, expected, strict=True)))
    return all(right)


def test_on_cuda_shapes_that_come_again_are_recorded(card, caplog):
    fast = prepare(small())
    fast.patience = 1
    assert batches(fast, 8, 6)
    assert not fast._programs, "a last small batch would not be worth it"
    assert batches(fast, 8)
    assert (len(fast._programs), card.recorded) == (1, 2)
    card.replayed = 0
    assert batches(fast, 8, 8, 4)
    assert card.replayed == 12
    assert (len(fast._programs), card.recorded) == (1, 2)
    assert batches(fast, *range(9, 15), *range(9, 15))
    assert sum(one.recording is not None for one in fast._programs.values()) == RECORDED
    assert not reports(caplog)


@needs_bfloat16
def test_bfloat16_does_not_wait_in_float32(card, caplog):
    fast, network = prepare(small(), precision="bf16"), small()
    fast.patience = 1
    with fast.batch():
        assert apart(both(fast, noise(2, 3, 8, 8))[0], both(network, noise(2, 3, 8, 8))[0]) > 1e-4
    assert card.recorded
    both(prepare(Branching().eval(), precision="bf16"), noise(2, 3, 8, 8))
    assert reports(caplog)[0].startswith("'Branching' runs without the fused engine, in float32: ")


def test_recordings_outlive_a_move_of_the_weights(card):
    network = small()
    fast = prepare(network)
    batches(fast, 8)
    for weight in (*network.parameters(), *network.buffers()):
        weight.data = weight.data.clone()  # as `.cpu()` and `.to(device)` do between the cells of a study
    assert batches(fast, 8)
    assert card.recorded == 2
    network[0].weight.data = network[0].weight * 2
    both(fast, noise(2, 3, 8, 8))
    assert card.recorded == 4
    assert apart(both(fast, noise(2, 3, 8, 8))[0], both(network, noise(2, 3, 8, 8))[0]) < 1e-6


def test_without_memory_for_recordings(card, caplog):
    fast = prepare(small())
    card.error = torch.OutOfMemoryError("CUDA out of memory")
    assert batches(fast, 8)
    (line,) = reports(caplog)
    assert line == "'Sequential' runs without CUDA graphs: OutOfMemoryError: CUDA out of memory"
    card.error = None
    fast = prepare(small())
    batches(fast, 8)
    with pytest.raises(torch.OutOfMemoryError), fast.batch():
        raise torch.OutOfMemoryError("in another part of the attack")
    assert not fast._programs, "their memory is needed"
    assert batches(fast, 8)


def test_a_wrong_gradient_is_found(card, caplog, monkeypatch):
    program = RecordedProgram.__call__

    def wrong(self, images):
        logits = program(self, images)
        return logits + (logits.detach() - logits) * 2

    monkeypatch.setattr(RecordedProgram, "__call__", wrong)
    fast = prepare(small())
    assert batches(fast, 8)
    (line,) = reports(caplog)
    assert "its gradients would differ by 2 of their norm" in line


@pytest.mark.parametrize(("kind", "tf32"), [("fused", False), ("compiled", True)])
def test_programs_are_compared_in_full_float32(kind, tf32, card, monkeypatch):
    """With TF32, two ways to compute the same differ by more than what is allowed; `compiled` has a wider limit."""
    module, seen = sys.modules[prepare.__module__], []

    def noted(check):
        def noting(*given, **others):
            seen.append((given[-1], "tf32" in float32_precision().values()))
            check(*given, **others)

        return noting

    for name in ("check_logits", "check_gradient"):
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    assert batches(prepare(small(), kind=kind), 8)
    assert seen == [(tf32, tf32)] * 2


def test_inside_a_batch_the_network_is_looked_at_once(card, monkeypatch):
    looked = []
    usual = watch.glance
    monkeypatch.setattr(watch, "glance", lambda network: looked.append(1) or usual(network))
    network = small()
    fast = prepare(network)
    looked.clear()
    assert batches(fast, 8)
    assert len(looked) == 1
    with fast.batch():
        both(fast, noise(2, 3, 8, 8))
        seen = []
        hook = network[2].register_forward_hook(lambda *_: seen.append(1))
        both(fast, noise(2, 3, 8, 8))
        hook.remove()
        both(fast, noise(2, 3, 8, 8))
        network[2].forward = lambda x: seen.append(2) or x.relu()
        both(fast, noise(2, 3, 8, 8))
        del network[2].forward
        both(fast, noise(2, 3, 8, 8))
    assert seen == [1, 2]
    network[3].train()
    with fast.batch():
        torch.manual_seed(0)
        found = fast(noise(2, 3, 8, 8))
    torch.manual_seed(0)
    assert torch.equal(found, network(noise(2, 3, 8, 8)))


def test_bfloat16_is_not_float32(monkeypatch):
    """On a device that does not compute in bfloat16, results would have the wrong name."""
    fast = prepare(small(), precision="bf16")
    with pytest.raises(EngineError, match=r"precision=bf16: .* not on meta; choose precision=float32"):
        fast(torch.empty(2, 3, 8, 8, device="meta"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(EngineError, match="precision=bf16: Tesla T4 does not compute in bfloat16"):
        check_precision("bf16", torch.device("cuda"))
    check_precision("float32", torch.device("cuda"))
    monkeypatch.setattr("lightning_attack.engine.support.missing", lambda: "torch 9.9 lacks a part")
    support._lacks_bfloat16.cache_clear()
    with pytest.raises(EngineError, match="lacks a part"):
        fast(noise(2, 3, 8, 8))
    support._lacks_bfloat16.cache_clear()


def test_marks_of_compiled_steps(monkeypatch):
    """What torch.compile's CUDA graphs keep for a backward pass lasts until the next mark: none while one may come."""
    marks, network = [], small()
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    monkeypatch.setattr(compiled, "rewritten", lambda network, *_: network)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    one, other = (compiled.CompiledProgram(network, (2, 3, 8, 8), False, torch.device("cuda")) for _ in range(2))
    images = noise(2, 3, 8, 8).requires_grad_()
    for _ in range(2):
        loss = sum(program(images).sum() for program in (one, other, one))  # an ensemble, and windows
        torch.autograd.grad(loss, images)
    assert len(marks) == 2
    loss = one(images).sum()
    torch.autograd.grad(loss, images, retain_graph=True)
    other(images)
    assert len(marks) == 3
    del loss
    gc.collect()
    both(other, images.detach())
    assert len(marks) == 4


def test_full_float32():
    before = float32_precision()
    with full_float32():
        assert set(float32_precision().values()) == {"ieee"}
    assert float32_precision() == before
    torch.backends.cudnn.allow_tf32, found = False, torch.backends.cudnn.allow_tf32
    try:
        assert float32_precision()["convolutions"] == "ieee"
    finally:
        torch.backends.cudnn.allow_tf32 = found

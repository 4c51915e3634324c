"""What a prepared network promises beside its results: the network stays what it was, and nothing gets lost."""

import copy
import pickle
import random
import shutil
import threading

import pytest
import torch
from torch import nn

from lightning_attack.engine import compiled, prepare
from lightning_attack.engine.program import Program
from tests.engine.compare import apart, both, noise, operators


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda network: (network, noise(2, 3, 8, 8).double()), "images are torch.float64"),
        (
            lambda network: (network[0].requires_grad_(True) and network, noise(2, 3, 8, 8)),
            "weights require a gradient",
        ),
        (lambda _: (Branching().eval(), noise(2, 3, 8, 8)), "aten._local_scalar_dense"),
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

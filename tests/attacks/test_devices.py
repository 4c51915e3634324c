"""What differs from device to device, shown without one: division, autocast, random numbers, sizes of kernels."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_attack.attacks import (
    L2,
    CrossEntropy,
    Draws,
    IterativeAttack,
    Linf,
    NoAttack,
    Prediction,
    TransferablePixels,
    TranslationInvariance,
    fspgd,
    pi_fgsm,
)
from lightning_attack.attacks.features import Recorder
from lightning_attack.attacks.objectives import transegpgd
from lightning_attack.attacks.objectives.base import Moment
from lightning_attack.attacks.random import MANY
from lightning_attack.pictures.bytes import to_bytes
from tests.attacks.pretended_device import DEVICE, PretendedDevice
from tests.attacks.toys import curved, scene

LEVELS = torch.arange(256, dtype=torch.float32) / 255


class DividesAsCuda(TorchDispatchMode):
    """By a number of the host CUDA divides as by multiplying with its inverse, which is rounded first."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.div.Tensor:
            number = args[1]
            if not isinstance(number, torch.Tensor) or number._is_zerotensor():
                return args[0] * float(torch.tensor(1.0) / torch.tensor(float(number)))
        return func(*args, **(kwargs or {}))


def test_a_plain_division_by_255_would_miss_levels():
    with DividesAsCuda():
        found = torch.arange(256.0) / 255
    assert (found != LEVELS).sum() == 126


@pytest.mark.parametrize("norm", ["linf", "l2", "none"])
def test_8_bit_images_are_multiples_of_1_255_on_every_device(norm):
    images = LEVELS[torch.randint(256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0))]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) * 0.06 - 0.03
    norms = {"linf": Linf("8/255"), "l2": L2(2.0)}
    attack = IterativeAttack(CrossEntropy(), norms[norm], 1) if norm in norms else NoAttack()
    with DividesAsCuda():
        unchanged = attack.quantize(images, images)
        changed = attack.quantize(images, (images + noise).clamp(0, 1))
    assert torch.equal(unchanged, images)
    assert torch.equal(changed, LEVELS[to_bytes(changed).long()])


@pytest.mark.parametrize(
    "make",
    [
        lambda: pi_fgsm(steps=3, step_size=0.05),
        lambda: IterativeAttack(CrossEntropy(), Linf(), 2, gradient_transforms=[TranslationInvariance()]),
        lambda: fspgd(steps=2, layers=["0"]),
    ],
    ids=["patch-wise", "TI", "features"],
)
def test_autocast_rounds_the_network_only(make):
    """The attack's own products stay in float32: `autocast` on a network that has none changes nothing."""
    images, labels = scene(2, 12, 14, dtype=torch.float32)

    class Pointwise(nn.Sequential):
        """Three classes from three colours, without a product that autocast would round."""

        def forward(self, x):
            return self[0](x) * torch.tensor([1.0, -2.0, 0.5])[:, None, None] - x.flip(1)

    model, labels = Pointwise(nn.Tanh()), labels % 3
    expected = make()(model, images, labels, [1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        found = make()(model, images, labels, [1, 2])
    assert not torch.equal(expected, images)
    assert torch.equal(found, expected)


def take_numbers(draws):
    """Draws of several purposes, shapes and kinds, of which some come again and others end a series."""
    large, other = (3, MANY), (MANY, 2)
    found = [draws.uniform("a", large) for _ in range(4)]
    found += [draws.uniform("a", other), draws.normal("a", other), draws.normal("a", other), draws.uniform("a", large)]
    found += [draws.normal("b", large) for _ in range(3)] + [draws.uniform("b", (4,)), draws.normal("b", large)]
    found += [torch.tensor(draws.uniform_on_host("b"))]
    found += [draws.normal("b", large) for _ in range(3)]
    rest = draws.select([1])
    found += [rest.normal("b", large)]
    return found + [rest.uniform("a", large) for _ in range(3)]


def test_numbers_drawn_ahead_are_the_same():
    expected = take_numbers(Draws([3, 4]))
    with PretendedDevice() as device:
        found = take_numbers(Draws([3, 4], DEVICE))
    assert all(torch.equal(getattr(one, "host", one), other) for one, other in zip(found, expected, strict=True))
    assert not device.waits


def test_numbers_are_drawn_before_they_are_asked_for():
    with PretendedDevice():
        draws = Draws([3], DEVICE)
        for _ in range(3):
            draws.uniform("a", (MANY,))
    ahead = draws._ahead["a"]
    assert ahead._next is not None
    (values, (drawing,)) = ahead._next
    drawing.result(timeout=60)
    plain = torch.Generator().manual_seed(draws._streams("a")[0].initial_seed())
    assert torch.equal(values, [torch.rand(1, MANY, generator=plain) for _ in range(4)][-1])


def test_stage_two_is_one_block_on_a_device(monkeypatch):
    """150 classes, whose divergence the CPU takes in many blocks of rows."""
    blocks, split = [], torch.Tensor.split

    def counted(values, *sizes, **dim):
        parts = split(values, *sizes, **dim)
        if sizes[1:] == (2,):  # rows, as in no other place
            blocks.append(parts)
        return parts

    monkeypatch.setattr(torch.Tensor, "split", counted)
    logits = torch.randn(1, 150, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)

    def weights(place):
        clean, now = (
            Prediction(logits.to(place), labels.to(place)),
            Prediction(logits.flip(2).to(place), labels.to(place)),
        )
        return TransferablePixels().weights(now, Moment(0, 1, clean=clean))

    monkeypatch.setattr(transegpgd, "BLOCK", 2**15)
    expected = weights("cpu")
    assert min(map(len, blocks)) > 10
    blocks.clear()
    with PretendedDevice():
        found = weights(DEVICE)
    assert [len(parts) for parts in blocks] == [1, 1]
    assert torch.equal(found.host, expected)


def test_a_recorder_copies_no_graph_per_pass(monkeypatch):
    model = curved(torch.float32)
    images, _ = scene(1, 12, 14, dtype=torch.float32)
    program = torch.export.export(model.eval(), (images,)).module()
    node = next(node.name for node in program.graph.nodes if node.name.startswith("conv2d"))
    recorder = Recorder(program, [node])
    monkeypatch.setattr("copy.deepcopy", lambda *_: pytest.fail("a graph is copied"))
    first, second = recorder(images)[1][node], recorder(images * 0.5)[1][node]
    assert not torch.equal(first, second)

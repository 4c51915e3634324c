"""The host asks the device for the next step without waiting for the last one. Checked on a pretended device."""

import copy
from collections import Counter
from functools import partial
from inspect import isabstract

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from lightning_attack import attacks
from lightning_attack.attacks import (
    PRESETS,
    Attack,
    BalancedMaskedCrossEntropy,
    BlockShuffle,
    CrossEntropy,
    GradientTransform,
    InputTransform,
    IterativeAttack,
    Linf,
    LogitsRatio,
    MaskedSpherical,
    Objective,
    PerWindow,
    RandomAffine,
    RandomChain,
    RandomColour,
    RandomCrop,
    RandomFlip,
    SourceTransform,
    Staged,
    StartFrom,
    Switch,
    TransferablePixels,
    Universal,
    UniversalPerturbation,
    UntilFooled,
    alma_prox,
    bim,
    dag,
    fgsm,
    pgd,
    transegpgd_mi_di_ti,
)
from lightning_attack.attacks.source_transforms import source
from lightning_attack.common.windows import Windows
from lightning_attack.engine.fixed_order import OPERATORS
from lightning_attack.models import Ensemble, SegmentationModel, TrainedModel
from lightning_attack.models.wrapper import with_windows
from lightning_attack.predict.cost import PeakMemory, count_passes
from lightning_attack.predict.module import AttackModule
from tests.attacks.pretended_device import DEVICE, OnDevice, PretendedDevice
from tests.attacks.test_contract import suited
from tests.attacks.toys import FEW, curved, half_right, rich, scene

MORE = 5
"""Steps of the longer of two attacks; the other has three."""
WAITING = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.max()),
    "condition": lambda x: 1 if (x > 0).any() else 0,
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "to the host": lambda x: x.cpu(),
    "into the host": lambda x: torch.zeros(2, 3).copy_(x),
    "equal": lambda x: torch.equal(x, x + 1),
    "allclose": lambda x: torch.allclose(x, x + 1),
    "nonzero": lambda x: x.nonzero(),
    "one-argument where": lambda x: torch.where(x > 0),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "bincount": lambda x: x.long().flatten().bincount(),
    "repeat_interleave": lambda x: torch.repeat_interleave(x.long().flatten()),
    "mask": lambda x: x[x > 0],
    "rows by mask": lambda x: x[x[:, 0] > 0],
    "set by mask": lambda x: x.clone().__setitem__(x > 0, x[0, 0]),
    "list as index": lambda x: x[[1, 0]],
    "index of the host": lambda x: x[torch.tensor([1, 0])],
    "set one value": lambda x: x.clone().__setitem__((0, 0), 1.0),
    "new tensor": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "as_tensor": lambda x: torch.as_tensor([1.0], device=x.device),
    "from the host": lambda x: torch.ones(3).to(x.device),
    "into the device": lambda x: x.clone().copy_(torch.ones(2, 3)),
    "pageable": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "pinned, blocking": lambda x: torch.ones(3).pin_memory().to(x.device),
}
GOING_ON = {
    "arithmetic": lambda x: (x + 1).pow(2).sum().sqrt() / x.numel(),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "slices": lambda x: x[1:, :2].clone().fill_(2.0),
    "set a slice": lambda x: x.clone().__setitem__(slice(1), 1.0),
    "index of the device": lambda x: x[torch.arange(2, device=x.device)],
    "argmax": lambda x: x.gather(1, x.argmax(1, keepdim=True)),
    "sort": lambda x: x.sort(1)[0],
    "like": lambda x: torch.zeros_like(x) + x.new_full((3,), 2.0) + torch.linspace(0, 1, 3, device=x.device),
    "pinned": lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
    "host alone": lambda x: float(torch.ones(3).sum()),
    "gradient": lambda x: torch.autograd.grad((y := x.detach().requires_grad_()).pow(2).sum(), y)[0],
}


@pytest.mark.parametrize("use", [*WAITING, *GOING_ON])
def test_pretended_device(use):
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0]])
    expected = torch.ones(3) if "pinned" in use else (WAITING | GOING_ON)[use](values)
    with PretendedDevice() as device:
        x = values.to(DEVICE)
        device.waits.clear()
        found = (WAITING | GOING_ON)[use](x)
    assert bool(device.waits) == (use in WAITING)
    assert repr(tree_map(lambda value: getattr(value, "host", value), found)) == repr(expected)


def test_pretended_device_refuses_tensors_of_the_host():
    with PretendedDevice(), pytest.raises(RuntimeError, match="of the host and of the device"):
        torch.ones(3).to(DEVICE) + torch.ones(3)


_TRACED = {}
"""Graphs by the name, the weights and the images of their network: those of all tests have a few networks."""


@pytest.fixture(autouse=True)
def graphs_of_the_host(monkeypatch):
    """Tensors without values, of which graphs are made, cannot be pretended: graphs are made on the host and moved."""
    original = source.trace_network

    def trace(forward, name, images):
        network = forward.__self__
        tensors = (*network.parameters(), *network.buffers())
        weights = b"".join(getattr(tensor, "host", tensor).detach().numpy().tobytes() for tensor in tensors)
        made, key = _TRACED, (name, type(network), weights, tuple(images.shape))
        if isinstance(images, OnDevice):
            module = copy.deepcopy(made[key].module).to(DEVICE)
            return source.TracedNetwork(module, name, made[key]._leaves, made[key]._form)
        return made.setdefault(key, original(forward, name, images))

    monkeypatch.setattr(source, "trace_network", trace)


def run(attack, model, images, labels, pretend):
    """The adversarial images, and what was waited for."""
    model = copy.deepcopy(model)
    region = torch.ones_like(labels, dtype=torch.bool)
    region[:, :2] = False
    settings = {"watch": lambda step, images: None} if attack.watchable else {}
    if not pretend:
        return attack(model, images, labels, [1, 2], region=region, **settings), Counter()
    with PretendedDevice() as device:
        model, images, labels, region = (one.to(DEVICE) for one in (model, images, labels, region))
        device.waits.clear()
        log = []
        with count_passes(model):
            adversarial = attack(
                model, images, labels, [1, 2], log=lambda *at: log.append(at), region=region, **settings
            )
    assert device.refused <= set(OPERATORS), "not exact to the last bit on CUDA"
    assert [step for step, _ in log] == list(range(getattr(attack, "attack", attack).steps))
    return adversarial.host, Counter(device.waits)


def waits_of_more_steps(make, model, size=(12, 14)):
    """What an attack of many steps waits for beyond one of few; both do what they do on the CPU."""
    images, labels = scene(2, *size, dtype=torch.float32)
    labels = half_right(model, images, labels)
    found = []
    for steps in (3, MORE):
        attack = make(steps)
        expected, _ = run(attack, model, images, labels, pretend=False)
        adversarial, waits = run(attack, model, images, labels, pretend=True)
        assert torch.equal(adversarial, expected)
        assert not torch.equal(adversarial, images)
        found.append(waits)
    assert found[0], "labels and range of the images are looked at, once per batch"
    return found[1] - found[0]


def parts(objective=None, **settings):
    return lambda steps: IterativeAttack(objective or CrossEntropy(), Linf(), steps, **settings)


def preset(function):
    if function in (alma_prox, dag):
        # Long steps, and many, so that the threshold is reached and what comes every ten steps has come.
        return lambda steps: function(steps=3 * steps, step_size=0.02)
    return lambda steps: function(steps=steps, **FEW.get(function.__name__, {}))


ATTACKS = {function.__name__: preset(function) for function in PRESETS if function is not fgsm}  # it has one step
ATTACKS |= {
    "per_window": lambda steps: PerWindow(pgd(steps=steps), Windows(8)),
    "l2": lambda steps: pgd(steps=steps, norm="l2", eps=1.0, step_size=0.2),
    "affine": parts(input_transforms=[RandomAffine()]),
    "mirrored": parts(input_transforms=[RandomAffine(scale=[0.5, 1.2], border="mirror", slant=0.3)]),
    "chain": parts(input_transforms=[RandomChain([RandomAffine(), RandomColour(), BlockShuffle()])], finish="sign"),
    "crop and flip": parts(input_transforms=[RandomCrop(), RandomFlip()]),
    "class_pixels": parts(BalancedMaskedCrossEntropy([1.0, 2.0, 3.0, 4.0, 5.0])),
    "ratio": parts(LogitsRatio()),
    "spherical": parts(MaskedSpherical()),
    "median": parts(Staged([CrossEntropy(), TransferablePixels(threshold="median")], [Switch(fooled=0.6)])),
}


def universal(folder):
    """A file of a universal perturbation."""
    path = folder / "universal.pt"
    Universal(torch.linspace(-0.03, 0.03, 60).view(3, 4, 5), 0.03, "resize", {}).save(path)
    return str(path)


OTHERS = {
    "Given": "returns images",
    "NoAttack": "returns images",
    "FunctionAttack": "a function of somebody's own",
    "Peer": "an attack of others",
    "StartFrom": "test_attacks_with_a_file",
    "UniversalPerturbation": "test_attacks_with_a_file",
    "UntilFooled": "test_until_fooled_waits_once_a_step",
}
"""Parts of attacks that are not in `ATTACKS`, and why or where they are."""


def kinds_in(value, depth=6):
    """The package's classes of an object and of what it is made of."""
    if isinstance(value, list | tuple | dict):
        inner = value.values() if isinstance(value, dict) else value
    elif type(value).__module__.startswith("lightning_attack.attacks"):
        yield type(value).__name__
        inner = vars(value).values()
    else:
        return
    for one in inner if depth else ():
        yield from kinds_in(one, depth - 1)


def test_every_part_of_attacks_is_tried_on_a_device():
    bases = Attack, GradientTransform, InputTransform, Objective, SourceTransform
    exported = {name: getattr(attacks, name) for name in attacks.__all__}
    found = {name for name, kind in exported.items() if isinstance(kind, type) and issubclass(kind, bases)}
    found = {name for name in found - {base.__name__ for base in bases} if not isabstract(exported[name])}
    assert found == {kind for make in ATTACKS.values() for kind in kinds_in(make(1))} & found | OTHERS.keys()


def test_attacks_with_a_file(tmp_path):
    file, model = universal(tmp_path), curved(torch.float32)
    assert not waits_of_more_steps(lambda steps: StartFrom(bim(steps=steps), file), model)
    images, labels = scene(2, 12, 14, dtype=torch.float32)
    expected, _ = run(UniversalPerturbation(file), model, images, labels, pretend=False)
    with PretendedDevice():
        found = UniversalPerturbation(file)(*(one.to(DEVICE) for one in (copy.deepcopy(model), images, labels)))
    assert torch.equal(found.host[:, :, 2:], expected[:, :, 2:])  # without the region
    assert not torch.equal(expected, images)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_step_waits_for_the_device(name):
    model = suited(ATTACKS[name](1), curved(torch.float32))
    assert not waits_of_more_steps(ATTACKS[name], model)


def network(attack=None):
    inner = copy.deepcopy(rich(attack, curved(torch.float32)))  # it will be moved
    return SegmentationModel(inner, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), stride=8, name="first")


def ensemble(by, attack=None):
    second = SegmentationModel(
        nn.Sequential(copy.deepcopy(rich(attack, curved(torch.float32, 1))), nn.Tanh()), name="second"
    )
    return Ensemble([network(attack), second], [2, 1], by)


NETWORKS = {
    "padded": network,
    "windows": lambda: with_windows(network(), Windows(8)),
    **{by: partial(ensemble, by) for by in ("logits", "softmax", "loss")},
    "trained": lambda: TrainedModel("embedded:scenes_fpn"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_do_not_wait_either(name):
    size = (64, 64) if name == "trained" else (12, 14)
    assert not waits_of_more_steps(lambda steps: transegpgd_mi_di_ti(steps=steps), NETWORKS[name]().eval(), size)


def test_a_predict_step_waits_no_more_for_more_steps(monkeypatch):
    # What it asks the device itself: to be done before the time is taken, and its memory.
    monkeypatch.setattr("lightning_attack.predict.batch_attack.clock", lambda images: 0.0)
    monkeypatch.setattr(PeakMemory, "begin", lambda self, device: None)
    monkeypatch.setattr(PeakMemory, "end", lambda self, device: None)
    images, labels = scene(2, 12, 14, dtype=torch.float32)
    found = []
    for steps in (3, MORE):
        module = AttackModule(
            network(), transegpgd_mi_di_ti(steps=steps), {"other": ensemble("logits")}, engine="eager"
        )
        batch = {"image": images, "mask": labels, "index": torch.arange(2)}
        expected = module.predict_step(batch, 0).adversarial
        with PretendedDevice() as device:
            module, batch = module.to(DEVICE), {name: values.to(DEVICE) for name, values in batch.items()}
            device.waits.clear()
            assert torch.equal(module.predict_step(batch, 0).adversarial.host, expected)
        found.append(Counter(device.waits))
    assert found[0]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("pgd", {"windows": Windows(8)}),
        ("admix", {"windows": Windows(8, attack="image")}),  # mixes images
        ("us_mm", {"curve_every": 1}),
        ("svre", {"target_labels": 2}),  # asks members one by one
        ("cwa", {"exact": True}),
        ("fia", {"curve_every": 1}),  # looks at layers
        ("naa", {"target_labels": 2}),
        ("tgr", {"exact": True}),  # changes the source
        ("sgm", {"windows": Windows(8)}),
        ("transegpgd_mi_di_ti", {"curve_every": 1}),
        ("vmi_fgsm", {"exact": True}),
        ("alma_prox", {"windows": Windows(8, attack="image")}),
    ],
)
def test_a_predict_step_on_a_device(name, way, monkeypatch):
    """An ensemble, a target, a region, and one of the ways to attack: the same as on the host.

    Presets of each kind; that every preset goes on without waiting is tested above.
    """
    monkeypatch.setattr("lightning_attack.predict.batch_attack.clock", lambda images: 0.0)
    monkeypatch.setattr(PeakMemory, "begin", lambda self, device: None)
    monkeypatch.setattr(PeakMemory, "end", lambda self, device: None)
    images, labels = scene(2, 8, 12, dtype=torch.float32)
    region = torch.ones_like(labels, dtype=torch.bool)
    region[:, :2] = False
    batch = {"image": images, "mask": labels, "index": torch.arange(2), "region": region}
    attack = ATTACKS[name](2)
    networks = ensemble("loss", attack), attack, {"other": network()}
    module = AttackModule(*networks, engine="eager", probe_size=(8, 12), **way)
    expected = module.predict_step(batch, 0)
    assert not torch.equal(expected.adversarial, images)
    with PretendedDevice() as device:
        found = module.to(DEVICE).predict_step({name: values.to(DEVICE) for name, values in batch.items()}, 0)
    assert torch.equal(found.adversarial.host, expected.adversarial)
    assert torch.equal(found.preds["other"]["adversarial"].host, expected.preds["other"]["adversarial"])
    assert device.refused <= set(OPERATORS), "not exact to the last bit on CUDA"


def test_until_fooled_waits_once_a_step():
    """The exception: which images are done decides how many are shown to the network next, which is the host's."""
    waits = waits_of_more_steps(lambda steps: UntilFooled(bim(steps=steps)), curved(torch.float32))
    assert [key.split()[0] for key in waits.elements()] == ["nonzero"] * (MORE - 3)

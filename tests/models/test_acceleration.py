"""Networks run by an engine: the same to their callers, where it pays, and in the attack's precision while attacked."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_attack.attacks import fspgd, pgd, svre, transegpgd
from lightning_attack.common.windows import Windows
from lightning_attack.engine import EngineError, float32_precision
from lightning_attack.models import ClassMap, Ensemble, SegmentationModel, TrainedModel
from lightning_attack.models.acceleration import FastNetworks
from lightning_attack.models.wrapper import freeze, without_engines
from lightning_attack.predict.module import AttackModule
from tests.engine.recorder import pretend_card
from tests.fake_cuda import FakeCuda
from tests.precisions import needs_bfloat16

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
BATCH = {"image": IMAGES, "index": torch.tensor([0, 1])}
NEXT = {"image": IMAGES.flip(-1), "index": torch.tensor([2, 3])}


def network():
    return TrainedModel("embedded:scenes_fpn")


def attacked(engine=None, precision="float32", attack=None, **settings):
    module = AttackModule(network(), attack or pgd(steps=2), engine=engine, precision=precision, **settings)
    return module.predict_step(BATCH, 0)


def calls(module, monkeypatch):
    """Counts what an engine is asked for, from now on."""
    asked = []
    fast = module.source.fast
    monkeypatch.setattr(module.source, "fast", lambda images: asked.append(images.requires_grad) or fast(images))
    return asked


def test_fused_attacks_as_eager_does():
    eager, fused = attacked("eager"), attacked("fused")
    assert torch.equal(attacked().adversarial, eager.adversarial)  # small images
    assert (fused.adversarial != IMAGES).float().mean() > 0.9
    assert (fused.adversarial == eager.adversarial).float().mean() > 0.999
    assert fused.passes == eager.passes
    again = attacked("fused")
    assert torch.equal(again.adversarial, fused.adversarial)


@pytest.mark.parametrize(("side", "asked"), [(312, []), (320, [False])])
def test_large_images_are_worth_it(monkeypatch, side, asked):
    module = AttackModule(network(), pgd(steps=1))
    found = calls(module, monkeypatch)
    with torch.no_grad():
        module.source(torch.zeros(1, 3, side, 320))
    assert found == asked


@needs_bfloat16
def test_runs_that_share_a_network_have_it_rewritten_once(monkeypatch):
    shared, said = network(), []
    monkeypatch.setattr(AttackModule, "_say", lambda module, status: said.append(status))
    for _ in range(2):
        module = AttackModule(shared, pgd(steps=1), engine="fused", precision="bf16")
        module.predict_step(BATCH, 0)
    rewritten = [status for status in said if status.startswith("rewriting")]
    assert len(rewritten) == 2, "for scoring, and in bfloat16 for the attack's gradients"


def test_a_network_can_be_copied_after_a_run_and_does_not_keep_it():
    shared = network()
    module = AttackModule(shared, pgd(steps=1), engine="fused")
    module.predict_step(BATCH, 0)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    again = pickle.loads(pickle.dumps(shared))
    assert again.fast is None
    assert torch.equal(again(IMAGES), network().eval()(IMAGES))


@needs_bfloat16
def test_precision_is_the_attack_s_alone():
    module = AttackModule(network(), pgd(steps=1), precision="bf16")
    exact = network().eval()(IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(module.source(IMAGES), exact, rtol=1e-4, atol=1e-4)
        with module._fast.attacking():
            rough = module.source(IMAGES)
        torch.testing.assert_close(module.source(IMAGES), exact, rtol=1e-4, atol=1e-4)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() > 1e-3
    assert (rough.argmax(1) == exact.argmax(1)).float().mean() > 0.95


def test_a_network_inside_another_is_the_one_that_is_fast():
    inner = [network(), network()]
    ensemble, mapped = Ensemble(inner), ClassMap(network(), [[0], [1], [2, 3, 4, 5, 6, 7]])
    expected = [model.eval()(IMAGES) for model in (ensemble, mapped)]
    FastNetworks([ensemble, mapped], "fused", "float32")
    assert ensemble.fast is None
    assert mapped.fast is None
    assert all(one.fast is not None for one in (*inner, mapped.network.model))
    for model, logits in zip((ensemble, mapped), expected, strict=True):
        torch.testing.assert_close(model(IMAGES), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "network", tiny(1).network),
        lambda model: model.mean.fill_(0.3),
        lambda model: setattr(model, "std", 2 * model.std),
        lambda model: setattr(model, "stride", 32),
        lambda model: [weight.data.mul_(2) for weight in model.parameters()],
    ],
    ids=["network", "mean", "std", "stride", "weights"],
)
def test_a_run_is_of_the_network_as_it_is_now(change):
    shared = freeze(tiny())
    FastNetworks([shared], "fused", "float32")
    before = shared(IMAGES[..., :80])
    change(shared)
    FastNetworks([shared], "fused", "float32")
    found = shared(IMAGES[..., :80])
    with without_engines(shared):
        torch.testing.assert_close(found, shared(IMAGES[..., :80]), rtol=1e-4, atol=1e-4)
    assert (found - before).abs().max() > 1e-3


def test_attacks_that_look_inside_find_what_they_look_for():
    attack = fspgd(steps=2)
    assert torch.equal(attacked("fused", attack=attack).adversarial, attacked("eager", attack=attack).adversarial)


def test_settings_of_a_run():
    one, other = (AttackModule(network(), transegpgd(), engine=engine).settings() for engine in ("eager", "fused"))
    assert {key for key in one if one[key] != other[key]} == {"engine"}
    assert one["source"] == AttackModule(network(), transegpgd(), engine="fused", precision="bf16").settings()["source"]


def test_what_cannot_be():
    with pytest.raises(ValueError, match="precision='bf16' needs fused or compiled"):
        AttackModule(SegmentationModel(nn.Conv2d(3, 2, 1)), pgd(), engine="eager", precision="bf16")


class Flat(nn.Module):
    """A network that takes the layout of its images for granted."""

    def forward(self, x):
        return x.view(len(x), -1).view(x.shape)


@pytest.mark.parametrize(
    ("make", "engine", "layouts"),
    [
        (lambda: nn.Conv2d(3, 3, 1), None, [True, True]),
        (Flat, None, [True, False, False]),
        (Flat, "eager", [False, False]),
    ],
)
def test_scoring_on_cuda_is_eager_in_channels_last(make, engine, layouts):
    """Unless a network takes another layout for granted, or shall be run as it is."""
    seen = []
    model = SegmentationModel(make()).eval()
    model.network.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    FastNetworks([model], engine, "float32")
    with FakeCuda(lambda tensor: False) as mode:
        mode.move(model)
        for _ in range(2):
            assert model(torch.empty(2, 3, 8, 8, device="cuda")).device.type == "cuda"
    assert seen == layouts


@pytest.mark.parametrize("exact", [False, True])
def test_exact_is_in_full_float32(exact):
    module, seen = AttackModule(network(), pgd(steps=1), engine="eager", exact=exact), []
    usual = float32_precision()
    module.source.register_forward_pre_hook(lambda *_: seen.append(float32_precision()))
    module.predict_step(BATCH, 0)
    assert len(seen) == (6 if exact else 3)
    full = {"convolutions": "ieee", "matrix_products": "ieee"}
    assert all(found == (full if exact else usual) for found in seen)
    assert float32_precision() == usual


def test_bfloat16_on_a_device_without_it_ends_the_run_at_once(monkeypatch):
    monkeypatch.setattr("lightning_attack.engine.support._lacks_bfloat16", lambda device: f"no bfloat16 on {device}")
    module = AttackModule(network(), pgd(steps=1), engine="fused", precision="bf16")
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, inference_mode=False)
    with pytest.raises(EngineError, match="precision=bf16: no bfloat16 on cpu; choose precision=float32"):
        trainer.predict(module, DataLoader([]))


@pytest.mark.parametrize(
    ("engine", "exact", "made"), [("fused", False, 1), ("compiled", False, 2), ("compiled", True, 1)]
)
def test_what_takes_long_waits_for_the_second_batch(engine, exact, made, monkeypatch):
    """A compiler takes minutes, for targets and last small batches too; with `exact` no image depends on others."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda graph, **_: compiled.append(graph) or graph)
    said = []
    monkeypatch.setattr(AttackModule, "_say", lambda module, status: said.append(status))
    shared = network()
    for _ in range(2):  # as the cells of a study
        module = AttackModule(shared, pgd(steps=2), engine=engine, exact=exact)
        for number in range(2):
            module.predict_step({"image": IMAGES, "index": torch.tensor([0, 1]) + 2 * number}, number)
    assert len(compiled) == (engine == "compiled")
    first = next(place for place, status in enumerate(said) if status.startswith(("rewriting", "compiling")))
    assert sum(status == "pgd step 2" for status in said[:first]) == made - 1


def tiny(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 5, 1)
    return SegmentationModel(nn.Sequential(*layers), stride=4)


SOURCES = {
    "one": tiny,
    "windows": tiny,
    "ensemble": lambda: Ensemble([tiny(), tiny(1)], [2, 1], "logits"),
    "svre": lambda: Ensemble([tiny(), tiny(1)], [2, 1], "loss"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_recorded_passes_attack_as_others_do(name, monkeypatch):
    """Who calls a network again before its backward pass gets the same gradients; shown without a card."""
    attack = svre(steps=2) if name == "svre" else pgd(steps=3)
    windows = Windows(48, attack="image") if name == "windows" else None
    source, found = SOURCES[name](), []
    for error in (RuntimeError("step by step"), None):
        recorder = pretend_card(monkeypatch)
        recorder.error = error
        module = AttackModule(copy.deepcopy(source), attack, engine="fused", windows=windows)
        found.append([module.predict_step(BATCH, 0).adversarial, module.predict_step(NEXT, 1).adversarial])
        assert bool(recorder.replayed) == (error is None)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    if name != "svre":  # a sum of differences, which rounding moves a lot
        monkeypatch.undo()
        expected = AttackModule(source, attack, engine="eager", windows=windows).predict_step(NEXT, 1).adversarial
        assert (found[1][1] == expected).float().mean() > 0.998

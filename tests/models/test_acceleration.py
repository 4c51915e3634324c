"""Networks run by an engine: the same to their callers, where it pays, and in the attack's precision while attacked."""

import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from lightning_attack.attacks import fspgd, pgd, transegpgd
from lightning_attack.models import ClassMap, Ensemble, SegmentationModel, TrainedModel
from lightning_attack.models.acceleration import FastNetworks
from lightning_attack.predict.module import AttackModule

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
BATCH = {"image": IMAGES, "index": torch.tensor([0, 1])}


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

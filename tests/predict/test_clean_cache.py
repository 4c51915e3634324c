"""Clean predictions: kept for the next attack, lent to the present one."""

import pytest
import torch

from lightning_attack.attacks import SVRE, Linf, NoAttack, TransferablePixels, UntilFooled, WorstCase, pgd, transegpgd
from lightning_attack.common.windows import Windows
from lightning_attack.models import Ensemble, SegmentationModel
from lightning_attack.predict.clean_cache import CleanPredictions
from lightning_attack.predict.module import AttackModule
from tests.attacks.toys import curved
from tests.precisions import needs_bfloat16


def test_on_disk_as_in_memory():
    kept = {memory: CleanPredictions(memory) for memory in (100, 10**6)}
    maps = [torch.randint(150, (9, 11), generator=torch.Generator().manual_seed(n)) for n in range(6)]
    for memory, one in kept.items():
        for number, classes in enumerate(maps):
            one.put(number, classes)
            assert torch.equal(one.get(0), maps[0]), "reading moves the place of writing"
        assert one._file._rolled == (memory == 100)
        assert all(torch.equal(one.get(number), classes) for number, classes in enumerate(maps))


def test_networks_see_clean_photos_once():
    source, target = (SegmentationModel(curved(torch.float32, seed)) for seed in (0, 1))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = {"image": images, "index": torch.tensor([0, 1]), "digest": ["a", "b"]}
    cache = CleanPredictions()

    def outputs(attack, batch):
        module = AttackModule(source, attack, {"target": target}, clean_cache=cache)
        seen = []
        hook = module.scored[1].register_forward_pre_hook(lambda network, given: seen.append(len(given[0])))
        preds = module.predict_step(batch, 0).preds
        hook.remove()
        return seen, preds

    first, expected = outputs(pgd(steps=1), batch)
    again, found = outputs(NoAttack(), batch)
    assert (first, again) == ([2, 2], [2]), "clean and adversarial; adversarial only"
    assert all(torch.equal(found[name]["clean"], one["clean"]) for name, one in expected.items())
    other, _ = outputs(NoAttack(), batch | {"digest": ["a", "c"]})
    assert other == [2, 2], "one of the photos is new"


def module_of(attack, settings):
    source = SegmentationModel(curved(torch.float32))
    module = AttackModule(source, attack, {"target": SegmentationModel(curved(torch.float32, 5))}, **settings)
    module.source.register_forward_pre_hook(lambda network, given: module.seen.append(given[0].requires_grad))
    module.seen = []
    return module


@pytest.mark.parametrize(
    ("attack", "settings", "lent"),
    [
        (transegpgd(steps=4), {}, 1),
        (transegpgd(steps=4), {"windows": Windows(6, 0.5)}, 1),
        (UntilFooled(transegpgd(steps=4)), {}, 1),
        (WorstCase([pgd(steps=1), transegpgd(steps=2)], name="worst_case"), {}, 1),
        (WorstCase([transegpgd(steps=1), transegpgd(steps=2)], name="worst_case"), {}, 2),
        (transegpgd(steps=4), {"windows": Windows(6, 0.5, attack="window")}, 0),
        pytest.param(transegpgd(steps=4), {"engine": "fused", "precision": "bf16"}, 0, marks=needs_bfloat16),
        (pgd(steps=4), {}, 0),
    ],
)
def test_the_source_sees_clean_photos_once(attack, settings, lent, monkeypatch):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = {"image": images, "index": torch.tensor([0, 1])}
    module = module_of(attack, settings)
    found, seen = module.predict_step(batch, 0), module.seen
    monkeypatch.setattr(AttackModule, "_lends", False)
    again = module_of(attack, settings)
    expected = again.predict_step(batch, 0)
    assert torch.equal(found.adversarial, expected.adversarial)
    assert not torch.equal(found.adversarial, images)
    assert found.passes == expected.passes
    assert len(again.seen) - len(seen) == lent


def test_an_attack_is_lent_what_it_would_see_whatever_the_cache_knows():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = {"image": images, "index": torch.tensor([0, 1]), "digest": ["a", "b"]}
    seen = []
    for cache in (None, CleanPredictions()):
        for _ in range(2):  # the second time the cache knows both
            module = module_of(transegpgd(steps=4), {"clean_cache": cache})
            module.predict_step(batch, 0)
            seen.append(module.seen)
    assert len({*map(len, seen)}) == 1, "passes of the source"


def test_members_of_an_ensemble_are_asked_themselves():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    both = Ensemble([SegmentationModel(curved(torch.float32, seed)) for seed in (0, 1)], by="loss")
    attack = transegpgd(steps=3)
    assert torch.equal(
        attack(both, images, labels, [1, 2], clean_logits=both(images).roll(1, 1)), attack(both, images, labels, [1, 2])
    )
    one = both.members[0]
    assert not torch.equal(
        attack(one, images, labels, [1, 2], clean_logits=one(images).roll(1, 1)), attack(one, images, labels, [1, 2])
    )


def test_members_of_an_ensemble_by_logits_do_not_say_what_it_says():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    both = Ensemble([SegmentationModel(curved(torch.float32, seed)) for seed in (0, 1)])
    attack = SVRE(TransferablePixels(), Linf(), steps=2)
    expected = attack(both, images, labels, [1, 2])
    assert torch.equal(attack(both, images, labels, [1, 2], clean_logits=both(images)), expected)

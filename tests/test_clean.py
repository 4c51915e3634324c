"""Clean predictions kept for the next attack."""

import torch

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.clean import CleanPredictions
from lightning_attack.models import SegmentationModel
from lightning_attack.module import AttackModule

from .attacks.toys import curved


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
    kept = CleanPredictions()

    def outputs(attack, batch):
        module = AttackModule(source, attack, {"target": target})
        module.kept = kept
        seen = []
        hook = module.scored[1].register_forward_pre_hook(lambda network, given: seen.append(len(given[0])))
        preds = module.predict_step(batch, 0)["preds"]
        hook.remove()
        return seen, preds

    first, expected = outputs(pgd(steps=1), batch)
    again, found = outputs(NoAttack(), batch)
    assert (first, again) == ([2, 2], [2]), "clean and adversarial; adversarial only"
    assert all(torch.equal(found[name]["clean"], one["clean"]) for name, one in expected.items())
    other, _ = outputs(NoAttack(), batch | {"digest": ["a", "c"]})
    assert other == [2, 2], "one of the photos is new"

"""Universal perturbations from a file, as an attack and as the start of one."""

from pathlib import Path

import pytest
import torch

from lightning_attack.attacks import L2, StartFrom, Universal, UniversalPerturbation, apgd, bim, dag, mi_fgsm, pgd, svre
from lightning_attack.attacks.universal import spread_to
from lightning_attack.models import Ensemble
from tests.attacks.toys import PIXELS, curved, half_right, scene


@pytest.fixture
def file(tmp_path):
    delta = PIXELS * torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).sign()
    Universal(delta, PIXELS, "tile", {"source": "mine"}).save(tmp_path / "learned.pt")
    return str(tmp_path / "learned.pt")


def test_file_comes_back(file, tmp_path):
    found = Universal.load(tmp_path / "learned.pt")
    assert (found.eps, found.spread, found.about) == (PIXELS, "tile", {"source": "mine"})
    assert found.delta.abs().unique().tolist() == [torch.tensor(PIXELS).item()]


def test_every_image_gets_the_same_tiles(file):
    images, labels = scene(2, 12, 7, dtype=torch.float32)
    images = (images * 255).round() / 255
    labels[0, :, 0] = 0
    delta = Universal.load(Path(file)).delta
    expected = torch.stack([
        torch.stack([
            torch.tensor([[min(max(image[c, y, x].item() + delta[c, y % 5, x % 4].item(), 0.0), 1.0) for x in range(7)]
                          for y in range(12)])
            for c in range(3)
        ])
        for image in images
    ])  # fmt: skip
    attack = UniversalPerturbation(file)
    found = attack(curved(torch.float32), images, labels)
    assert torch.allclose(found, expected, rtol=0, atol=1e-7)
    saved = attack.quantize(images, found)
    assert ((saved - images) * 255).abs().max().round() == 8
    region = torch.zeros_like(labels, dtype=torch.bool)
    region[:, :3] = True
    inside = attack(curved(torch.float32), images, labels, region=region)
    assert torch.equal(inside[:, :, :3], found[:, :, :3])
    assert torch.equal(inside[:, :, 3:], images[:, :, 3:])


def test_spread():
    delta = torch.arange(6.0).view(1, 2, 3)
    assert spread_to(delta, (1, 2), "tile").tolist() == [[[0, 1]]]
    assert spread_to(delta, (2, 3), "resize").tolist() == delta.tolist()
    assert spread_to(delta, (2, 3), "tile").tolist() == delta.tolist()


def test_a_smaller_radius_is_inside_and_a_larger_one_is_refused(file):
    images, labels = scene(2, 8, 8)
    assert UniversalPerturbation(file, eps="16/255").norm.eps == 16 / 255
    with pytest.raises(ValueError, match=r"holds a perturbation of eps=8/255, more than eps=4/255 of this run"):
        UniversalPerturbation(file, eps="4/255")
    with pytest.raises(ValueError, match="spread='mirror': must be one of tile, resize"):
        UniversalPerturbation(file, spread="mirror")
    with pytest.raises(ValueError, match="universal cannot be targeted"):
        UniversalPerturbation(file)(curved(), images, labels, targeted=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no file '.*other.pt'; `lightning-attack universal` learns"),
        (b"text", "is no universal perturbation: "),
        ({"delta": 1}, "is no universal perturbation, as"),
        (Universal(torch.ones(3, 2, 2), PIXELS, "tile", {}), r"is damaged: \(3, 2, 2\) values"),
        (Universal(torch.full((3, 2, 2), torch.nan), PIXELS, "tile", {}), "is damaged"),
    ],
)
def test_other_files(content, message, tmp_path):
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        torch.save(content, path)
    elif content is not None:
        content.save(path)
    with pytest.raises(ValueError, match=message):
        UniversalPerturbation(str(path))


def test_an_attack_starts_there(file):
    model, (images, labels) = curved(), scene(2, 12, 10)
    labels = half_right(model, images, labels)
    start = UniversalPerturbation(file).added(images)
    x = start
    seen = []
    for _ in range(3):
        x = x.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x), labels, ignore_index=255, reduction="sum")
        x = x + 0.01 * torch.autograd.grad(loss, x)[0].sign()
        x = (images + (x - images).clamp(-PIXELS, PIXELS)).clamp(0, 1)
    attack = StartFrom(bim(steps=3, name="from_universal"), file)
    found = attack(model, images, labels, [1, 2], watch=lambda step, shown: seen.append(shown))
    assert torch.allclose(found, x, rtol=0, atol=1e-8)
    assert torch.equal(seen[-1], found)
    assert len(seen) == attack.steps == 3
    assert torch.equal(attack(model, images[1:], labels[1:], [2]), found[1:])
    assert attack.settings()["sha256"] == UniversalPerturbation(file).sha256
    assert not torch.equal(bim(steps=3)(model, images, labels), found)
    # The attack itself is left as it was.
    assert torch.equal(attack.attack(model, images, labels), bim(steps=3)(model, images, labels))
    # One gradient at the start: APGD returns the point where it was taken.
    first = StartFrom(apgd(steps=1, random_start=False), file)(model, images, labels)
    assert torch.allclose(first, start, rtol=0, atol=1e-6)
    both = StartFrom(svre(steps=2), file)
    assert both(Ensemble([model, curved(seed=1)]), images, labels).shape == images.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (dag, "dag has a start of its own"),
        (lambda: mi_fgsm(norm=L2(1.0)), "mi_fgsm has the norm l2"),
        (pgd, "pgd starts at a random point; set its random_start to false"),
        (lambda: bim(eps="4/255"), "more than eps=4/255 of this run"),
    ],
)
def test_starts_that_cannot_be(make, message, file):
    with pytest.raises(ValueError, match=message):
        StartFrom(make(), file)

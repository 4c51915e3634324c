"""`Smoothed`: tests against plain loops, certificates against a known radius, and what runs say."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.common.labels import ABSTAINED
from lightning_attack.common.windows import Windows
from lightning_attack.models import Ensemble, ModelError, SegmentationModel, Smoothed, with_windows
from lightning_attack.models.draws import draws_for
from lightning_attack.models.fingerprint import fingerprint
from lightning_attack.models.smoothing import at_least, holm
from lightning_attack.models.wrapper import decide
from lightning_attack.predict.module import AttackModule
from lightning_attack.report import collect
from lightning_attack.report.intervals import miou_interval
from tests.callbacks.small_runs import SCENES, model, run, strict_json


def network(classes=4):
    torch.manual_seed(0)
    return nn.Conv2d(3, classes, 3, padding=1)


def holm_by_hand(values, alpha):
    """Step by step, as Holm (1979) describes it."""
    rejected = [False] * len(values)
    for step, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        if values[place] > alpha / (len(values) - step):
            break
        rejected[place] = True
    return rejected


def test_the_binomial_test_is_that_of_scipy():
    for n, tau in ((1, 0.5), (24, 0.6), (100, 0.75), (300, 0.9)):
        expected = [stats.binomtest(k, n, tau, alternative="greater").pvalue for k in range(n + 1)]
        assert np.allclose(at_least(n, tau).numpy(), expected, rtol=1e-9, atol=0)


def test_holm_step_by_step():
    rng = np.random.default_rng(0)
    for round_ in range(60):
        values = rng.random(int(rng.integers(1, 40))) ** (1 + round_ % 6)  # many small ones in some rounds
        values = np.concatenate([values, values[: len(values) // 2]])  # and ties
        alpha = float(rng.choice([0.01, 0.1, 0.5]))
        assert holm(torch.from_numpy(values), alpha).tolist() == holm_by_hand(values.tolist(), alpha)


def test_the_algorithm_pixel_by_pixel():
    f, image = network(), torch.rand(3, 6, 7)
    settings = {"sigma": 0.5, "tau": 0.55, "n0": 7, "n": 30, "alpha": 0.3}
    smoothed = Smoothed(f, **settings, batch=4, seed=5)
    draws = draws_for(image, 5)
    found = []
    with torch.no_grad():
        for count in (7, 30):
            noise = torch.stack([torch.randn(3, 6, 7, generator=draws) for _ in range(count)])
            found.append(f(image + 0.5 * noise).argmax(1).flatten(1).T.tolist())
        classes = decide(smoothed, smoothed(image[None])).flatten().tolist()
    chosen, values = [], []
    for first, second in zip(*found, strict=True):
        counts = Counter(first)
        chosen.append(min(counts, key=lambda one: (-counts[one], one)))
        hits = second.count(chosen[-1])
        values.append(stats.binomtest(hits, 30, 0.55, alternative="greater").pvalue)
    certain = holm_by_hand(values, 0.3)
    assert classes == [one if sure else ABSTAINED for one, sure in zip(chosen, certain, strict=True)]
    assert 5 < sum(certain) < 40, "some abstain, others do not"


def test_certificates_hold_on_a_linear_network():
    """Class 1 where w x > b: its smoothed class is certain with probability tau at a distance of the radius exactly."""
    weight, bias, sigma, tau = torch.tensor([0.6, -0.3, 0.9]), 0.4, 0.2, 0.8
    f = nn.Conv2d(3, 2, 1)
    f.weight.data = torch.stack([-weight, weight])[:, :, None, None]
    f.bias.data = torch.tensor([bias, -bias])
    smoothed = Smoothed(f, sigma=sigma, tau=tau, n0=20, n=300, batch=320)
    assert smoothed.certified_radius == pytest.approx(sigma * stats.norm.ppf(tau), rel=1e-9)
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        classes = decide(smoothed, smoothed(image))[0]
        distance = (torch.einsum("c,chw->hw", weight, image[0]) - bias) / weight.norm()
        certain = classes != ABSTAINED
        assert (distance.abs()[certain] >= smoothed.certified_radius).all()
        assert torch.equal(classes[certain], (distance[certain] > 0).long())
        assert certain[distance.abs() > 2 * smoothed.certified_radius].all(), "nor is it more careful than it must be"
        assert 0.2 < certain.float().mean() < 0.9
        # The worst change of a certain pixel within the radius leaves its class; one pixel takes all of the norm.
        place = torch.where(certain, distance.abs(), torch.inf).argmin()
        row, column = divmod(int(place), 24)
        worst = image.clone()
        towards = -torch.sign(distance[row, column]) * weight / weight.norm()
        worst[0, :, row, column] += 0.999 * smoothed.certified_radius * towards
        votes = f(worst + sigma * torch.randn(2000, 3, 24, 24)[:, :, row : row + 1, column : column + 1])
        assert votes[:, :, row, column].argmax(1).mode()[0] == classes[row, column]


def test_noise_knows_the_image_alone():
    images = torch.rand(3, 3, 8, 9)
    settings = {"sigma": 0.3, "tau": 0.6, "n0": 3, "n": 20, "alpha": 0.1, "seed": 1}
    smoothed = Smoothed(network(), **settings)
    together, alone = smoothed(images), torch.cat([smoothed(image[None]) for image in images.flip(0)]).flip(0)
    assert torch.equal(together, alone)
    odd = torch.rand(1, 3, 33, 35)  # PyTorch draws other numbers for a stack of such images than in turn
    assert torch.equal(*(Smoothed(network(), **settings, batch=batch)(odd) for batch in (4, 8)))
    changed = {"sigma": 0.31, "tau": 0.61, "n0": 4, "n": 21, "alpha": 0.11, "seed": 2}
    others = [Smoothed(network(), **settings | {name: value}) for name, value in changed.items()]
    assert len({*map(fingerprint, [smoothed, *others])}) == 7, "the settings are part of the network"
    assert not torch.equal(others[-1](images), together)


def test_windows_are_those_of_the_network():
    f, image = network(), torch.rand(1, 3, 12, 15)
    windows = Windows(8)
    found = with_windows(Smoothed(f, sigma=0.3, tau=0.6, n0=3, n=20, alpha=0.1), windows)(image)
    inside = with_windows(SegmentationModel(f, 4), windows)
    assert torch.equal(found, Smoothed(inside, sigma=0.3, tau=0.6, n0=3, n=20, alpha=0.1).network(image))
    assert inside.windows == windows


def test_abstained_pixels_are_wrong_and_counted(tmp_path):
    smoothed = Smoothed(model(1), sigma=0.2, tau=0.7, n0=4, n=40, alpha=0.01, name="smoothed")
    run(tmp_path, pgd(steps=2), {"other": model(1), "smoothed": smoothed}, curve_every=1)
    summary = strict_json(tmp_path / "pgd_source" / "version_0" / "transfer.json")
    rows = {row["target"]: row for row in summary["targets"]}
    assert [rows[name][column] for name in ("source", "other") for column in ("clean_abstained", "abstained")] == [
        0
    ] * 4
    assert not {"certified_radius", "defence"} & {*rows["other"]}
    settings = {"class": "Smoothed", "sigma": 0.2, "tau": 0.7, "n0": 4, "n": 40, "alpha": 0.01}
    assert rows["smoothed"]["defence"] == {"network": "other", "seed": 0, "parts": [settings]}
    assert rows["smoothed"]["certified_radius"] == pytest.approx(0.2 * stats.norm.ppf(0.7))
    hits, labels, preds, away = np.zeros(8), np.zeros(8), np.zeros(8), 0
    for scene in SCENES:
        image = torch.from_numpy(scene.image.astype(np.float32) / 255).permute(2, 0, 1)[None]
        with torch.no_grad():
            said = decide(smoothed, smoothed(image))[0].numpy()
        known = scene.mask != 255
        away += (said[known] == ABSTAINED).sum()
        for c in range(8):
            hits[c] += (known & (said == c) & (scene.mask == c)).sum()
            labels[c] += (scene.mask == c).sum()
            preds[c] += (known & (said == c)).sum()
    iou = hits[labels > 0] / (labels + preds - hits)[labels > 0]
    assert rows["smoothed"]["clean_miou"] == pytest.approx(iou.mean(), abs=1e-12)
    assert rows["smoothed"]["clean_accuracy"] == pytest.approx(hits.sum() / labels.sum(), abs=1e-12)
    assert rows["smoothed"]["clean_abstained"] == pytest.approx(away / labels.sum(), abs=1e-12)
    assert 0.01 < away / labels.sum() < 0.9
    (read,), _ = collect([str(tmp_path)])
    interval = miou_interval(read.counts("smoothed")[:, 0], draws=100)
    assert interval.value == pytest.approx(iou.mean(), abs=1e-12), "reports take them, too"
    assert interval.low < interval.value < interval.high
    last = summary["step_curve"]["targets"]["smoothed"][-1]
    assert last == rows["smoothed"]["adversarial_miou"]


def test_what_is_refused():
    f = SegmentationModel(network(), name="net")
    smoothed = Smoothed(f, sigma=0.3, tau=0.75, n0=3, n=20)
    with pytest.raises(ModelError, match=r"n=20 all pixels of an image of 16 x 16 would abstain.* need n=44 or more"):
        smoothed(torch.rand(1, 3, 16, 16))
    ready = Smoothed(f, sigma=0.3, tau=0.75, n0=3, n=60)
    assert (decide(ready, ready(torch.rand(1, 3, 16, 16))) != ABSTAINED).any()
    with pytest.raises(ModelError, match=r"'net' is smoothed, .* it can be a target, but no source"):
        AttackModule(ready, pgd(steps=2), {"net": f})
    with pytest.raises(ModelError, match=r"network 'both' has one inside that abstains"):
        AttackModule(f, pgd(steps=2), {"both": Ensemble([f, ready])}, probe_size=(16, 16))
    # Two networks that abstain everywhere on the probe image are not the same for that.
    timid, other = (Smoothed(f, sigma=9.0, tau=tau, n0=3, n=300, name=f"net_{tau}") for tau in (0.9, 0.95))
    module = AttackModule(timid, NoAttack(), {"other": other}, probe_size=(16, 16))
    assert not timid(torch.rand(1, 3, 16, 16)).any()
    assert module.white_box == {"net_0.9": True, "other": False}
    assert module.doubts == []
    # Without masks and attack, its own prediction stands for the labels, as far as it has one.
    batch = {"image": torch.rand(1, 3, 16, 16), "name": ["a"], "index": torch.arange(1)}
    output = AttackModule(ready, NoAttack(), {}, probe_size=(16, 16)).predict_step(batch, 0)
    assert output.labels.min() >= 0
    for settings, says in (
        ({"sigma": 0.0}, "sigma=0.0 must be above 0"),
        ({"tau": 0.4}, "tau=0.4 must be 0.5 or more and below 1"),
        ({"alpha": 1.0}, "alpha=1.0 must be above 0 and below 1"),
        ({"n0": 0}, "n0=0, n=100 and batch=8 must be 1 or more"),
    ):
        with pytest.raises(ModelError, match=says):
            Smoothed(f, **settings)

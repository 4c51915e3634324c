"""`ImageWriter`: the saved images, read back from disk."""

import numpy as np
import pytest
from PIL import Image

from lightning_attack.attacks import pgd
from lightning_attack.attacks.base import Attack
from tests.callbacks.small_runs import SCENES, run, strict_json
from tests.callbacks.test_transfer_metrics import Nested


def test_saved_images_stay_in_the_budget(finished):
    folder, metrics, _ = finished
    largest = 0
    for scene in SCENES:
        saved = np.array(Image.open(folder / "images" / f"{scene.name}.png")).astype(int)
        largest = max(largest, np.abs(saved - scene.image).max())
    assert largest == 8
    assert metrics.summary["perturbation"]["linf"] == pytest.approx(8, abs=1e-4)


class Brighter(Attack):
    """Adds a share of a level, so that saving has something to round."""

    def perturb(self, problem):
        return (problem.images + 0.7 / 255).clamp(0, 1)


def test_float_images_are_rounded_not_cut(tmp_path):
    run(tmp_path, Brighter("brighter"), quantize=False)
    for scene in SCENES:
        saved = Image.open(tmp_path / "brighter_source" / "version_0" / "images" / f"{scene.name}.png")
        assert np.array_equal(np.array(saved), np.minimum(scene.image.astype(int) + 1, 255))


def test_nested_names_and_an_image_without_labels(tmp_path):
    metrics = run(tmp_path, pgd(steps=2), dataset=Nested())
    folder = tmp_path / "pgd_source" / "version_0"
    saved = sorted((folder / "images" / "town" / "day.1").iterdir())
    assert [path.name for path in saved] == [f"scene_{index:06d}.png" for index in range(3)]
    assert np.array_equal(np.array(Image.open(saved[1])), SCENES[1].image)  # nothing to attack
    assert metrics.rows[0]["images"] == 3
    strict_json(folder / "transfer.json")

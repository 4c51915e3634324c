"""`DAG` against smallest norms that are known."""

import pytest

from lightning_attack.attacks.loops.dag import DAG
from lightning_attack.attacks.norms import Linf
from tests.attacks.loops.linear import TWO, linear_scene, needed


@pytest.mark.parametrize("targeted", [False, True])
def test_dag_finds_the_smallest_norm_where_all_values_count_alike(targeted):
    images, labels = linear_scene(TWO, targeted)
    images[1, :, :2] = 0.48
    smallest = needed(TWO, images, labels, 0.99, targeted)
    adversarial = DAG(400, "0.1/255")(TWO, images, labels, targeted=targeted)
    found = Linf(1.0).size(adversarial - images)
    assert bool((found >= smallest - 1e-9).all())
    assert bool((found <= 1.05 * smallest).all()), found / smallest

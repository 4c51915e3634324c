"""`fingerprint`: equal for equal networks, and for no others."""

from copy import deepcopy

from lightning_attack.models import Ensemble, SegmentationModel
from lightning_attack.models.fingerprint import fingerprint
from tests.callbacks.small_runs import model


def test_networks_that_differ_in_settings_only_are_others():
    first, second = model(1), model(2)
    ensembles = [Ensemble([first, second], [1, 3]), Ensemble([first, second], [3, 1]),
                 Ensemble([first, second], [3, 1], by="softmax")]  # fmt: skip
    wide = SegmentationModel(deepcopy(first.network), mean=(0.5,) * 3, std=(0.25,) * 3, stride=8, name="net")
    prints = [fingerprint(network) for network in (*ensembles, first, second, wide)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(model(1)) == fingerprint(first.train())

"""Targets that nobody asked for: those of other classes are left out, those that fail only where they may."""

import pytest
from torch import nn

from lightning_attack.models.wrapper import ModelError
from lightning_attack.predict.default_targets import unfit


def test_a_target_that_cannot_be_run_is_left_out_or_an_error():
    source = nn.Conv2d(3, 2, 1)
    targets = {"same": nn.Conv2d(3, 2, 1), "failing": nn.Conv2d(4, 2, 1), "other": nn.Conv2d(3, 5, 1)}
    left_out = unfit(source, targets, (8, 8))
    assert left_out.keys() == {"failing", "other"}
    assert left_out["other"] == "5 classes, the source has 2"
    with pytest.raises(ModelError, match="failing"):
        unfit(source, targets, (8, 8), may_fail=False)
    del targets["failing"]
    assert unfit(source, targets, (8, 8), may_fail=False).keys() == {"other"}

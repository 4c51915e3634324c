"""A finished run that many tests of callbacks look at."""

import pytest

from lightning_attack.attacks import transegpgd
from tests.callbacks.small_runs import model, run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One run of TranSegPGD with a white box and a target, looked at by many tests."""
    results = tmp_path_factory.mktemp("results")
    targets = {"other": model(1), "twin": model(0)}
    metrics = run(results, transegpgd(steps=6, random_start=False), targets)
    return results / "transegpgd_source" / "version_0", metrics, {"other": model(1), "twin": model(0)}

"""Fixtures that several floors share."""

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_attack.cli.main import main
from tests.processes import run_command

ROOT = Path(__file__).parents[1]

# Runs that tests start would share out all GPUs of a machine among themselves. tests/gpu uses the first one.
os.environ.setdefault("GPUS_FOR_TESTS", os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0])
os.environ["CUDA_VISIBLE_DEVICES"] = ""

if "PYTEST_XDIST_WORKER" in os.environ:
    # The tests share the machine's cores, so each takes one, and so do the processes that it starts.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def same_environment():
    """Strategies of several processes leave ranks and ports in the environment; the next test must not find them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def run(tmp_path_factory):
    """Run `python main.py ...` in a process of its own, from the repository's root."""

    def run(*arguments, cwd=ROOT):
        said = tmp_path_factory.mktemp("said") / "output.txt"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        code = run_command([str(ROOT / "main.py"), *map(str, arguments)], cwd, environment, said)
        assert code == 0, f"exit code {code}\n{said.read_text()}"

    return run


@pytest.fixture
def predict(monkeypatch, tmp_path):
    """Run `predict` in this process, into `tmp_path/results`; returns the exit code. A dictionary is a file of YAML."""
    monkeypatch.setattr(sys, "argv", ["main.py"])

    def predict(*arguments):
        words = ["predict", f"--results={tmp_path / 'results'}"]
        for number, argument in enumerate(arguments):
            if isinstance(argument, dict):
                (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(argument))
                words += ["-c", str(tmp_path / f"{number}.yaml")]
            else:
                words.append(str(argument))
        return main(words)

    return predict

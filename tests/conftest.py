"""Fixtures that several floors share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_attack.cli.main import main

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
def run():
    """Run `python main.py ...` as a user does, in a process of its own, from the repository's root."""

    def run(*arguments, cwd=ROOT, code=0, launcher=(sys.executable,), timeout=300):
        process = subprocess.run(
            [*launcher, str(ROOT / "main.py"), *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert process.returncode == code, f"exit code {process.returncode}\n{process.stdout}\n{process.stderr}"
        return process

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

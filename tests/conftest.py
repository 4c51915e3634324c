"""Fixtures that several floors share."""

import os
import sys
import traceback
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
def run(tmp_path_factory):
    """Run `python main.py ...` in a process of its own, from the repository's root.

    It is a copy of this one, which has imported what takes three seconds to import.
    """

    def run(*arguments, cwd=ROOT):
        said = tmp_path_factory.mktemp("said") / "output.txt"
        child = os.fork()
        if not child:
            _become([str(ROOT / "main.py"), *map(str, arguments)], cwd, said)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0, f"exit code {code}\n{said.read_text()}"

    return run


def _become(words, cwd, said):
    """End this process as the command would end its own."""
    code = 70
    with said.open("w") as output:
        try:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.stdout = sys.stderr = output
            os.chdir(cwd)
            os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
            torch.set_num_threads(1)
            # By these Lightning starts the other processes of a run.
            sys.argv, sys.modules["__main__"].__spec__ = words, None
            code = main(words[1:])
        except BaseException:
            traceback.print_exc()
        finally:
            output.flush()
            os._exit(code)


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

"""The package as `pip install` leaves it: all files there, and the commands work from an empty folder."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("lightning_attack", "configs", "tests/requirements.txt", "LICENSE", "README.md", "pyproject.toml",
           "requirements.txt")  # fmt: skip


def content(folder):
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package, installed from its wheel without network."""
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for name in SOURCES:
        place = source / name
        place.parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    alone = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *alone, "--no-build-isolation", f"--wheel-dir={wheels}", source], check=True)
    (wheel,) = wheels.glob("lightning_attack-*.whl")
    subprocess.run([*pip, "install", *alone, f"--target={site}", wheel], check=True)
    return site


def test_all_files_are_in_the_wheel(site):
    inside = content(site / "lightning_attack")
    expected = content(ROOT / "lightning_attack") | {f"configs/{file}" for file in content(ROOT / "configs")}
    assert inside == expected
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"bin", "lightning_attack"}


def test_commands_from_an_empty_folder(site, tmp_path):
    script, module = [site / "bin" / "lightning-attack"], [sys.executable, "-m", "lightning_attack"]
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def start(program, *words):
        process = subprocess.run([*program, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return process.stdout

    quick = ("--data.limit=1", "--model.attack.steps=1", "--data.dataset.size=64")
    start(script, "predict", "-c", "configs/ensemble.yaml", "--model.attack=PGD", *quick, "--run_name=a")
    start(module, "report", "results", "--output=report")

    folder = tmp_path / "results" / "a"
    assert {row["attack"] for row in csv.DictReader((folder / "transfer.csv").open())} == {"pgd"}
    assert (folder / "command.txt").read_text().startswith("lightning-attack predict -c")
    assert "plotly" in (tmp_path / "report" / "report.html").read_text().lower()


def test_each_way_to_start_it_names_itself(tmp_path):
    ways = {
        ("main.py",): "python main.py",
        ("-m", "lightning_attack"): "python -m lightning_attack",
        ("-m", "lightning_attack.cli"): "python -m lightning_attack.cli",
    }
    for words, name in ways.items():
        started = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        assert started.returncode == 2
        assert started.stderr.startswith("error: no command is given\nknown: predict, fit, validate, test, export,")
        assert f"`{name} --help`" in started.stderr

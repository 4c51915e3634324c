"""`check.py`: its parts where there is a GPU; and most of them on small networks where there is none."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from lightning_attack import attacks
from lightning_attack.cli.main import main
from tests.gpu import check
from tests.gpu.check import PARTS, RUNS, Part, small
from tests.precisions import WITHOUT_BFLOAT16

SCRIPT = Path(__file__).with_name("check.py")
VISIBLE = os.environ["GPUS_FOR_TESTS"]
"""What CUDA_VISIBLE_DEVICES was before conftest.py hid all devices."""
ELSEWHERE = "whole", "compiled", "hazards", "pt2", "engine:unet", "engine:fpn", "engine:deeplab"
"""Beginnings of parts that take long here, or are run below; one of the engine's stands for all four."""
HERE = [part for part in PARTS if not part.startswith(ELSEWHERE)]
KINDS = ("admix", "svre", "faug", "tgr")
"""Presets that are run in different ways: with partners, on an ensemble, on a graph, on one with attention."""


def run_script(tmp_path, *words, gpus=""):
    words = [sys.executable, str(SCRIPT), *words, "--json", str(tmp_path / "found.json")]
    subprocess.run(words, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": gpus}, capture_output=True)
    return json.loads((tmp_path / "found.json").read_text())


@pytest.fixture
def quick(monkeypatch):
    """Networks, presets and times that are small."""
    kinds = {name: (lambda: small(2), 5, size) for name, (_, _, size) in (check.NETWORKS | check.SEGFORMER).items()}
    monkeypatch.setattr(check, "NETWORKS", kinds)
    monkeypatch.setattr(check, "SEGFORMER", {})
    monkeypatch.setattr(check, "ROOT", Path("/nowhere/at/all"))  # without the programs of others
    monkeypatch.setattr(check, "TrainedModel", lambda name: small(len(name), classes=8))
    monkeypatch.setattr(attacks, "PRESETS", [getattr(attacks, name) for name in KINDS])
    monkeypatch.setattr(Part, "milliseconds", lambda self, work, seconds=0: (work(), (1, 1.0))[1])


@pytest.mark.parametrize("part", HERE)
def test_parts_on_small_networks(part, quick, tmp_path):
    path, before = tmp_path / "found.json", torch.are_deterministic_algorithms_enabled()
    Part(Namespace(device="cpu", tiny=True, part=part, json=path)).start()
    found = json.loads(path.read_text())
    faults = [one for one in found.pop("faults") if not (WITHOUT_BFLOAT16 and WITHOUT_BFLOAT16 in one)]
    assert faults == []
    assert found
    if part.startswith("presets"):
        assert found["rows"].keys() == {*KINDS}
    assert torch.are_deterministic_algorithms_enabled() == before


def test_the_script_itself(tmp_path):
    found = run_script(tmp_path, "--device=cpu", "--tiny", "--parts=hazards:windows")
    assert set(found) == {"hazards:windows"}
    assert found["hazards:windows"]["faults"] == []
    assert found["hazards:windows"]["fused off by"] < 1e-5


@pytest.mark.parametrize("run", ["large", "fit", "universal"])
def test_commands_of_whole_runs(run, monkeypatch, capsys):
    """They are what the commands take."""
    monkeypatch.setattr(sys, "argv", ["main.py", *RUNS[run], "--print_config"])
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main([*RUNS[run], "--print_config"]))
    assert not ended.value.code
    assert "trainer:" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not shutil.which("nvidia-smi") or not VISIBLE, reason="no NVIDIA GPU")
@pytest.mark.parametrize("part", PARTS)
def test_on_a_gpu(part, tmp_path):
    assert not run_script(tmp_path, f"--parts={part}", gpus=VISIBLE)[part]["faults"]

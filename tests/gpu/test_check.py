"""`check.py`: its parts where there is a GPU, and the script itself where there is none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.check import PARTS

SCRIPT = Path(__file__).with_name("check.py")
VISIBLE = os.environ["GPUS_FOR_TESTS"]
"""What CUDA_VISIBLE_DEVICES was before conftest.py hid all devices."""


def check(tmp_path, *words, gpus=""):
    words = [sys.executable, str(SCRIPT), *words, "--json", str(tmp_path / "found.json")]
    subprocess.run(words, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": gpus}, capture_output=True)
    return json.loads((tmp_path / "found.json").read_text())


def test_the_script_itself(tmp_path):
    found = check(tmp_path, "--device=cpu", "--tiny", "--parts=hazards:windows")
    assert set(found) == {"hazards:windows"}
    assert found["hazards:windows"]["faults"] == []
    assert found["hazards:windows"]["fused off by"] < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not shutil.which("nvidia-smi") or not VISIBLE, reason="no NVIDIA GPU")
@pytest.mark.parametrize("part", PARTS)
def test_on_a_gpu(part, tmp_path):
    assert not check(tmp_path, f"--parts={part}", gpus=VISIBLE)[part]["faults"]

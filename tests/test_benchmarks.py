"""The benchmarks run, and give the figures that they promise; how large these are is for an idle machine to say."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"


def rows(name, file, *words):
    """The figures of a benchmark."""
    subprocess.run([sys.executable, BENCHMARKS / name, *words, f"--json={file}"], check=True, timeout=300)
    return json.loads(file.read_text())["rows"]


def test_one_process_against_two(tmp_path):
    one, two = rows("end_to_end.py", tmp_path / "file.json", "--limit=4", "--rounds=1", "--model.attack.steps=1")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["speedup_of_run"] == one["speedup_of_command"] == 1
    for row in (one, two):
        assert 0 < row["attack_share_of_run"] < 1
        assert row["images_per_second"] > 0

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


def test_a_step_in_turns_with_plain_loops(tmp_path):
    found = rows("speed.py", tmp_path / "file.json", "--quick", "--networks=embedded-deeplabv3plus")
    assert [(row["network"], row["precision"], row["engine"]) for row in found] == [
        ("embedded-deeplabv3plus", "float32", "fused"), ("embedded-deeplabv3plus", "bf16", "fused")
    ]  # fmt: skip
    for row in found:
        assert row["size"] == "8x128x128"
        assert row["speedup_over_naive"] > 0
        assert row["speedup_over_backward"] > 0
        assert 0 < row["fraction_of_floor"] < 1
        assert row["peak_memory_mb"] > 0
        assert abs(row["network_share"] + row["loss_share"] + row["rest_share"] - 1) < 1e-6

"""A finished run, read back."""

from lightning_attack.runs import read_run
from tests.runs.made import make_run, matrices


def test_equal_photos_of_one_run_are_two_images(tmp_path):
    run = read_run(make_run(tmp_path / "run", counts=matrices(3), digests=["a", "a", "b"]))
    assert run.images == {"a": 0, "a#2": 1, "b": 2}

"""Runs of older versions, a file for each image: they are read, go on and give the same figures."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest

from lightning_attack.attacks import NoAttack
from lightning_attack.callbacks import RunFolder, TransferMetrics
from lightning_attack.cli.main import main
from lightning_attack.runs.names import record_files, segment_files
from lightning_attack.runs.store import RecordStore
from tests.callbacks.small_runs import run
from tests.runs.kept import drop
from tests.runs.made import make_run, matrices


def write_old(folder, index, name, confusion, curve=None, **facts):
    """As version 0.1 wrote the record of an image: `confusion` is (targets, parts, 2, C, C)."""
    plain = {"index": index, "name": name, "size": {"linf": 8.0, "l2": 1.0, "psnr": 33.0}, "scoring": 0.0,
             "passes": {"forward": 21, "backward": 20}, "seconds": 0.1, "memory": None, "digest": f"digest of {name}",
             "failed": {}} | facts  # fmt: skip
    arrays = {"figure/loss": np.array([0.5, 0.75])} | ({} if curve is None else {"curve": curve})
    content = io.BytesIO()
    text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    np.savez_compressed(content, plain=text, confusion=confusion, **arrays)
    path = folder / "records" / f"{index:08d}.record"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def test_a_report_of_old_runs_is_that_of_new_ones(tmp_path):
    counts = matrices(8, spread=0.3)
    for attack, seed in (("pgd", 0), ("fgsm", 1)):
        own = matrices(8, seed=seed) if seed else counts
        new = make_run(tmp_path / "new" / attack, attack, own, curve_steps=(1, 20), failed=[(2, "net_b")])
        old = tmp_path / "old" / attack
        old.mkdir(parents=True)
        for name in ("transfer.json", "settings.json"):
            shutil.copy(new / name, old)
        for index, image in enumerate(own):
            kept = image.copy()
            kept[1] *= index != 2
            failed = {"net_b": "NaN"} if index == 2 else {}
            curve = np.stack([kept[:, index % 2], kept[:, 1]], 1)
            write_old(old, index, f"photo{index}", kept[:, None], curve, failed=failed)
    for version in ("old", "new"):
        assert main(["report", str(tmp_path / version), f"--output={tmp_path / 'reports' / version}"]) == 0
    for name in ("report.csv", "differences.csv", "report.md", "report.tex"):
        text = (tmp_path / "reports" / "old" / name).read_text()
        assert text.replace("old/", "new/") == (tmp_path / "reports" / "new" / name).read_text()
    for old, new in zip(RecordStore(tmp_path / "old" / "pgd"), RecordStore(tmp_path / "new" / "pgd"), strict=True):
        assert (old.counts == new.counts).all()
        assert (old.clean.dense() == new.clean.dense()).all()
        assert (old.curve == new.curve).all()
        assert old.figures["loss"].tolist() == [0.5, 0.75]


def test_an_old_run_goes_on(tmp_path):
    """Old records stay what they are; what is missing or torn among them comes to lie in a segment."""

    def callbacks():
        return [RunFolder(str(tmp_path), "mine"), TransferMetrics(table=False)]

    first, second = callbacks(), callbacks()
    run(tmp_path, NoAttack(), callbacks=first)
    folder = tmp_path / "mine"
    records, (segment,) = list(RecordStore(folder)), segment_files(folder)
    segment.unlink()
    for record in records:
        confusion = np.stack([record.clean.dense()] * 2, 1)[:, None]  # nothing was attacked: they are the same
        write_old(folder, record.index, record.name, confusion, digest=record.digest, size=record.size,
                  passes=record.passes)  # fmt: skip
    drop(folder, 1)
    torn = record_files(folder)[2]
    torn.write_bytes(torn.read_bytes()[:-3])
    with pytest.warns(UserWarning, match=rf"{torn.name}' is damaged or .*; its image is attacked again"):
        run(tmp_path, NoAttack(), callbacks=second)
    assert [int(path.stem) for path in record_files(folder)] == [0, 2, 4]
    assert list(RecordStore(folder).indices) == [0, 1, 2, 3, 4]
    assert second[-1].rows == first[-1].rows

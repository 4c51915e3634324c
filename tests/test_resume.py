"""Runs of real processes: the same numbers however they are launched, and whatever stops them on the way."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KILLS = int(os.environ.get("KILLS", "2"))
"""Runs that are killed; more of them by hand: KILLS=20 python -m pytest tests/test_resume.py -k killed."""
SMALL = ("--data.dataset.init_args.count=13", "--data.dataset.init_args.size=64", "--data.batch_size=1",
         "--trainer.accelerator=cpu", "--model.attack.steps=3", "--run_name=run")  # fmt: skip
DDP = ("--trainer.devices=2", "--trainer.strategy=ddp")


def start(folder, *arguments, launcher=(sys.executable,), **environment):
    return subprocess.Popen(
        [*launcher, str(ROOT / "main.py"), "predict", f"--results={folder}", *SMALL, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process, code=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, f"exit code {process.returncode}\n{output}"
    return output


def results(folder):
    """All that a run says and saves, but for the time that it took."""
    report = json.loads((folder / "run" / "transfer.json").read_text())
    del report["seconds"]
    images = {path.name: path.read_bytes() for path in (folder / "run" / "images").iterdir()}
    assert len(images) == 13
    return report, (folder / "run" / "transfer.csv").read_text(), images


def records(folder):
    return {path.name: path.read_bytes() for path in (folder / "run" / "records").glob("*.record")}


def wait_for(folder, count, process):
    while len(records(folder)) < count and process.poll() is None:
        time.sleep(0.02)


def nodes_of_slurm(folder, *arguments):
    """Two nodes of one task each, as `srun` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "attack", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
           "SLURM_NNODES": "2", "SLURM_LOCALID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": str(port)}  # fmt: skip
    return [
        start(folder, "--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp", *arguments,
              **job, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank))
        for rank in range(2)
    ]  # fmt: skip


def single(folder, *arguments):
    return [start(folder, *arguments)]


def exact_batches(folder, *arguments):
    return [start(folder, *arguments, "--data.batch_size=4")]


def ddp(folder, *arguments):
    return [start(folder, *arguments, *DDP)]


def torchrun(folder, *arguments):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return [start(folder, *arguments, "--trainer.devices=2", launcher=launcher)]


ATTACKS = os.environ.get("ATTACKS", "transegpgd_mi_di_ti").split()
"""More of them by hand: ATTACKS="pgd transegpgd_mi_di_ti vmi_fgsm"."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_launcher_gives_the_same_bits(attack, tmp_path):
    found = {}
    for launch in (single, exact_batches, ddp, torchrun, nodes_of_slurm):
        attacked = (f"--model.attack=configs/attacks/{attack}.yaml", "--model.attack.steps=3", "--model.exact=true")
        for process in launch(tmp_path / launch.__name__, *attacked):
            finish(process)
        found[launch.__name__] = results(tmp_path / launch.__name__)
    for name, result in found.items():
        assert result == found["single"], name


def test_killed_runs_go_on(tmp_path):
    """Killed without a warning, with one and with two processes, at random moments."""
    finish(start(tmp_path / "whole"))
    generator = random.Random(0)
    folder, kept = tmp_path / "killed", {}
    for kill in range(KILLS):
        process = start(folder, *(DDP if kill % 2 else ()))
        wait_for(folder, min(12, len(kept) + 1), process)
        time.sleep(generator.uniform(0, 0.3))
        if kill % 4 < 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # the launcher alone
        process.wait()
        now = records(folder)
        for name, content in kept.items():
            assert now[name] == content, "an image was attacked again after it was recorded"
        kept = now
        if len(kept) == 13:
            break
    finish(start(folder))
    assert {name: records(folder)[name] for name in kept} == kept
    assert results(folder) == results(tmp_path / "whole")
    left = [path.name for path in (folder / "run").rglob(".*") if not path.name.startswith(".lock")]
    assert all("unfinished" in name for name in left)


def test_a_signal_stops_all_processes_after_the_batch(tmp_path):
    for processes, number, told in ((2, 2, signal.SIGTERM), (1, 5, signal.SIGUSR1)):
        process = start(tmp_path, *(DDP if processes == 2 else ()), "--model.attack.steps=20")
        wait_for(tmp_path, number, process)
        os.killpg(process.pid, told)
        output = finish(process, 128 + told)
        count = len(records(tmp_path))
        assert number <= count < 13
        report = json.loads((tmp_path / "run" / "transfer.json").read_text())
        assert report["partial"] is True
        assert (report["images"], report["missing"]) == (count, 13 - count)
        assert f"Partial: {13 - count} images are missing; the same command goes on" in output
        header, first = (tmp_path / "run" / "transfer.csv").read_text().splitlines()[:2]
        assert header.endswith(",partial")
        assert first.endswith(",True")
        assert not (tmp_path / "run" / "stop").exists()
    finish(start(tmp_path, "--model.attack.steps=20"))
    assert "partial" not in results(tmp_path)[0]

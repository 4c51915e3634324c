"""Runs of real processes: the same numbers however they are launched, and whatever stops them on the way."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lightning_attack.cli.main import main as command_line
from lightning_attack.common.shards import members
from lightning_attack.runs.names import shard_files
from tests.runs.kept import packed

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", "2"))
"""Runs that are killed; more of them by hand: KILLS=20 python -m pytest tests/cli/test_resume.py -k killed."""
IMAGES = os.environ.get("IMAGES", "png")
"""What these keep; by hand also IMAGES=shards."""
SMALL = ("--data.dataset.init_args.count=13", "--data.dataset.init_args.size=64", "--data.batch_size=1",
         "--trainer.accelerator=cpu", "--model.attack.steps=3", "--run_name=run")  # fmt: skip
DDP = ("--trainer.devices=2", "--trainer.strategy=ddp")


def start(folder, *arguments, launcher=(sys.executable,), main=("main.py", "predict"), **environment):
    return subprocess.Popen(
        [*launcher, *main, f"--results={folder}", *SMALL, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process, code=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, f"exit code {process.returncode}\n{output}"
    return output


@pytest.fixture(autouse=True)
def as_a_process(monkeypatch):
    """What the processes that these tests start have too."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def here(folder, *arguments):
    """The same command to its end, in this process, which is quicker than one of its own."""
    assert command_line(["predict", f"--results={folder}", *SMALL, *map(str, arguments)]) == 0


def results(folder, count=13):
    """All that a run says and saves, but for when and in which batches it ran, and the time and memory that it took."""
    report = json.loads((folder / "run" / "transfer.json").read_text())
    del report["date"], report["seconds"], report["peak_memory_mb_per_image"], report["data"]["batch_size"]
    images = {path.name: path.read_bytes() for path in (folder / "run" / "images").glob("*.png")}
    images |= {name: member.read() for name, member in members(shard_files(folder / "run")).items()}
    assert len(images) == count
    return report, (folder / "run" / "transfer.csv").read_text(), images


def records(folder):
    return packed(folder / "run")


def wait_for(folder, count, process):
    while len(records(folder)) < count and process.poll() is None:
        time.sleep(0.02)


SRUN = """
import os, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
places = [{"SLURM_PROCID": rank, "SLURM_NODEID": rank, "SLURM_LOCALID": "0"} for rank in "01"]
tasks = [subprocess.Popen(words, env=os.environ | place) for place in places]
with open(os.environ["TASKS"], "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
sys.exit(max(task.wait() for task in tasks))
"""
"""Stands for `srun` on two nodes of one task each."""


def listening(group):
    """How many processes of a group have a handler of their own for SIGUSR2, which nobody else takes."""
    count = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(place.name)) == group:
                (caught,) = re.findall(r"SigCgt:\s*(\w+)", (place / "status").read_text())
                count += int(caught, 16) >> (signal.SIGUSR2 - 1) & 1
        except OSError:  # it has ended meanwhile
            continue
    return count


def job_of_slurm(folder, *arguments):
    """The batch script as SLURM would run it."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    programs = {
        "srun": SRUN,
        "scontrol": f"import sys; open({str(tools / 'asked')!r}, 'a').write(str(sys.argv[1:]))",
        "python": f"import os, sys; os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])",
    }
    for name, text in programs.items():
        (tools / name).write_text(f"#!{sys.executable}\n{text}")
        (tools / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "attack", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
           "SLURM_NNODES": "2", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
           "TASKS": str(tools / "tasks"), "PATH": f"{tools}:{os.environ['PATH']}"}  # fmt: skip
    script = ["bash", str(ROOT / "configs" / "cluster" / "slurm.sbatch")]
    return start(folder, *arguments, launcher=script, main=(), **job)


def nodes_of_slurm(folder, *arguments):
    """A job whose time is up: both of its tasks end after their batch, and it is requeued and goes on."""
    job, tools = job_of_slurm(folder, *arguments), folder.parent / "tools"
    wait_for(folder, 2, job)
    for task in (tools / "tasks").read_text().split():
        os.kill(int(task), signal.SIGUSR1)
    finish(job, 128 + signal.SIGUSR1)
    assert (tools / "asked").read_text() == "['requeue', '7']"
    count = len(records(folder))
    assert 2 <= count < 13
    report = json.loads((folder / "run" / "transfer.json").read_text())
    assert (report["partial"], report["images"], report["missing"]) == (True, count, 13 - count)
    finish(job_of_slurm(folder, *arguments))
    assert (tools / "asked").read_text() == "['requeue', '7']"


def exact_batches(folder, *arguments):
    here(folder, *arguments, "--data.batch_size=4")


def ddp(folder, *arguments):
    finish(start(folder, *arguments, *DDP))


def torchrun(folder, *arguments):
    """The script for several machines, on one."""
    script = ["bash", str(ROOT / "configs" / "cluster" / "torchrun.sh")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    place = {"HEAD": "127.0.0.1:0", "NODES": "1", "DEVICES": "2", "PATH": path}
    finish(start(folder, *arguments, launcher=script, main=(), **place))


DEFENDED = """
model:
  targets:
    drawn:
      class_path: Defended
      init_args:
        network: &fpn {class_path: TrainedModel, init_args: {file: "embedded:scenes_fpn"}}
        defences: [{class_path: ResizeAndPad}, {class_path: CropAndScale}, {class_path: JPEG}]
    smoothed:
      {class_path: Smoothed, init_args: {network: *fpn, sigma: 0.05, tau: 0.51, n0: 2, n: 14, alpha: 0.5, batch: 14}}
"""
"""Targets whose predictions are random: defended ones."""

ATTACKS = os.environ.get("ATTACKS", "transegpgd_mi_di_ti").split()
"""More of them by hand: ATTACKS="pgd transegpgd_mi_di_ti vmi_fgsm"."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_launcher_gives_the_same_bits(attack, tmp_path):
    found, targets = {}, tmp_path / "targets.yaml"
    targets.write_text(DEFENDED)
    for launch in (here, exact_batches, ddp, torchrun, nodes_of_slurm):
        attacked = (f"--model.attack=configs/attacks/{attack}.yaml", "--model.attack.steps=3", "--model.exact=true")
        attacked += ("-c", str(targets))
        launch(tmp_path / launch.__name__, *attacked)
        found[launch.__name__] = results(tmp_path / launch.__name__)
    for name, result in found.items():
        assert result == found["here"], name
    abstained = [float(line.split(",")[-1]) for line in found["here"][1].splitlines()[1:]]
    assert abstained[:2] == [0, 0]
    assert 0 < abstained[2] < 1


def test_killed_runs_go_on(tmp_path):
    """Killed without a warning, with one and with two processes, at random moments."""
    count = 2 * KILLS + 9
    settings = f"--data.dataset.init_args.count={count}", "--model.attack.steps=8", f"--images={IMAGES}"
    here(tmp_path / "whole", *settings)
    generator = random.Random(0)
    folder, kept = tmp_path / "killed", {}
    for kill in range(KILLS):
        process = start(folder, *settings, *(DDP if kill % 2 else ()))
        wait_for(folder, min(count - 1, len(kept) + 1), process)
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
        print(f"{len(kept)} of {count} after kill {kill + 1}")
    here(folder, *settings)
    assert {name: records(folder)[name] for name in kept} == kept
    assert results(folder, count) == results(tmp_path / "whole", count)
    left = [path.name for path in (folder / "run").rglob(".*") if not path.name.startswith(".lock")]
    assert all("unfinished" in name for name in left)


def test_source_transforms_in_two_processes_and_after_a_kill(tmp_path):
    """What two processes attack until they are killed, and what one attacks after that, is as in one whole run."""
    settings = "--model.attack=transfer_best", "--data.dataset.init_args.count=7", "--model.attack.steps=3"
    here(tmp_path / "whole", *settings)
    folder = tmp_path / "killed"
    process = start(folder, *settings, *DDP)
    wait_for(folder, 4, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = records(folder)
    assert 4 <= len(before) < 7
    here(folder, *settings)
    assert {name: records(folder)[name] for name in before} == before
    assert results(folder, 7) == results(tmp_path / "whole", 7)


def test_a_signal_stops_the_run_after_the_batch(tmp_path):
    """One process; that a signal stops several, `nodes_of_slurm` and the test below show."""
    process = start(tmp_path, "--model.attack.steps=20")
    wait_for(tmp_path, 5, process)
    os.killpg(process.pid, signal.SIGUSR1)
    output = finish(process, 128 + signal.SIGUSR1)
    count = len(records(tmp_path))
    assert 5 <= count < 13
    report = json.loads((tmp_path / "run" / "transfer.json").read_text())
    assert report["partial"] is True
    assert (report["images"], report["missing"]) == (count, 13 - count)
    assert f"Partial: {13 - count} images are missing; the same command goes on" in output
    header, first = (tmp_path / "run" / "transfer.csv").read_text().splitlines()[:2]
    assert header.endswith(",partial")
    assert first.endswith(",True")
    assert not (tmp_path / "run" / ".stop").exists()
    here(tmp_path, "--model.attack.steps=20")
    assert "partial" not in results(tmp_path)[0]


def test_a_process_without_photos_waits_through_a_signal(tmp_path):
    process = start(tmp_path, "--data.limit=1", "--model.attack.steps=300", *DDP)
    while listening(process.pid) < 2 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    report = json.loads((tmp_path / "run" / "transfer.json").read_text())
    assert report["images"] == 1
    assert "partial" not in report  # the batch that was finished was the only one

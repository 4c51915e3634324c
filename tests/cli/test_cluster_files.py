"""The batch scripts of `configs/cluster`, with `srun` and `scontrol` that only note what they were asked for."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "configs" / "cluster"
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "attack", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1",
       "SLURM_CPUS_PER_TASK": "6", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """Run a script as a job that is stopped in time, perhaps after an image was added; returns what it asked for."""

    def job(script, *words, adds=None, **environment):
        record = f'mkdir -p "{adds}" && touch "{adds}/0000_0000.segment"' if adds else ":"
        tools = {
            "srun": f'echo "cpus=$SRUN_CPUS_PER_TASK $*" > asked; {record}; exit 138',
            "scontrol": 'echo "$@" > requeued',
        }
        for name, text in tools.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        (tmp_path / "requeued").unlink(missing_ok=True)
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = os.environ | JOB | {"PATH": path, "HOME": "home"} | environment
        done = subprocess.run(["bash", str(CLUSTER / script), *words], cwd=tmp_path, env=environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 138, done.stderr
        requeued = tmp_path / "requeued"
        return (tmp_path / "asked").read_text(), requeued.read_text() if requeued.exists() else None, done.stderr

    return job


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ((), "results/attack-7"),
        (("--run_name=mine",), "results/mine"),
        (("--run_name", "mine", "--results", "my runs"), "my runs/mine"),
        (("--results=there", "-c", "results"), "there/attack-7"),
        (("--results=~/there",), "home/there/attack-7"),
    ],
)
def test_a_job_is_requeued_only_if_it_has_added_an_image(job, words, folder):
    asked, requeued, _ = job("slurm.sbatch", *words, adds=f"{folder}/records")
    assert requeued == "requeue 7\n"
    assert asked.startswith("cpus=6 --wait=120 python -m lightning_attack predict -c configs/cluster/ddp.yaml ")
    assert f" --run_name={Path(folder).name} {' '.join(words)}".rstrip() in asked
    assert "--fresh" not in asked
    # The second time the same record is written again: nothing was added.
    asked, requeued, said = job("slurm.sbatch", *words, adds=f"{folder}/records", SLURM_RESTART_COUNT="1")
    assert requeued is None
    assert f"Not requeued: no image was added to {folder} in this time" in said
    assert asked.endswith(" --fresh=false\n"), "a job that comes back does not start over"


def test_an_array_of_jobs_shares_a_study(job):
    asked, requeued, _ = job("slurm_array.sbatch", "-c", "s.yaml", "--results=r", adds="r/s/pgd_fpn/records")
    assert asked == "cpus=6 python -m lightning_attack study -c s.yaml --results=r --cell=2/4\n"
    assert requeued == "requeue 7\n"
    assert job("slurm_array.sbatch", "-c", "s.yaml", "--results=r", adds="r/s/pgd_fpn/records")[1] is None


def test_cluster_jobs_never_fall_back_to_the_cpu():
    assert yaml.safe_load((CLUSTER / "ddp.yaml").read_text())["trainer"]["accelerator"] == "gpu"

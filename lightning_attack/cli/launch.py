"""Who started this process, and do the variables in its environment fit? Without torch; see `processes` for the rest.

A run of several processes finds the others by variables such as RANK and WORLD_SIZE. Left over from another job, or set
by SLURM for tasks that nobody started, they make a process wait for others that will never come.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec

from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.program import program

STARTED_BY = "LIGHTNING_ATTACK_STARTED_BY"
"""Variable with the id of the process of ours that starts the others on its machine."""

_COUNTS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
VARIABLES = (*_COUNTS, "MASTER_ADDR", "MASTER_PORT")
"""Variables by which the processes of a run find each other."""

_SPECIAL_STEPS = 0xFFFFFFF0
"""SLURM's ids of steps that are no `srun` of the user (the batch script, an interactive shell) begin here."""


class LaunchError(UsageError):
    """The environment says that this process is one of several, and contradicts itself or the configuration."""


def launcher(env: Mapping[str, str] = os.environ) -> str | None:
    """What started the processes of this run: `torchrun`, `srun`, `lightning` (this program), or None: unknown or none.

    Example:
        >>> launcher({"RANK": "2", "WORLD_SIZE": "4"}), launcher({"TORCHELASTIC_RUN_ID": "a", "RANK": "2"})
        (None, 'torchrun')
    """
    if env.get(STARTED_BY) in (str(os.getpid()), str(os.getppid())):
        return "lightning"
    if "TORCHELASTIC_RUN_ID" in env:
        return "torchrun"
    return "srun" if _in_step(env) else None


def is_first(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this process speaks for all of the run, as Lightning will number them.

    Example:
        >>> is_first({"LOCAL_RANK": "0", "NODE_RANK": "1"}), is_first({"RANK": "2"})    # the latter is left over
        (False, True)
        >>> is_first({"TORCHELASTIC_RUN_ID": "a", "RANK": "2", "LOCAL_RANK": "0"})
        False
        >>> is_first({"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"})
        False
    """
    if (by := launcher(env)) == "torchrun":
        names = ["RANK"]
    elif by == "srun" and _slurm_counts(env):
        names = ["SLURM_PROCID"]
    else:
        names = ["LOCAL_RANK", "NODE_RANK", "GROUP_RANK"]
    return all(env.get(name, "0") == "0" for name in names)


def check_numbers(env: Mapping[str, str] = os.environ) -> None:
    """Raise `LaunchError` for a rank or the like that is no number: Lightning reads it when it is imported."""
    for name in (*_COUNTS, "MASTER_PORT"):
        if name in env and not env[name].isdecimal():
            raise LaunchError(f"{name}='{env[name]}' in the environment is no number\n{remedy(env)}")


def check_environment(env: Mapping[str, str] = os.environ) -> None:
    """Raise `LaunchError` if the environment makes no sense to a run by itself, before anything else is done.

    Example:
        >>> check_environment({"RANK": "4", "WORLD_SIZE": "4"})
        Traceback (most recent call last):
            ...
        lightning_attack.cli.launch.LaunchError: RANK=4 and WORLD_SIZE=4 are set in the environment, but ranks are ...
        if they were left by another job: env -u RANK -u WORLD_SIZE lightning-attack ...
    """
    for rank, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if rank in env and size in env and int(env[rank]) >= int(env[size]):
            raise LaunchError(
                f"{rank}={env[rank]} and {size}={env[size]} are set in the environment, but ranks are below the number "
                f"of processes\n{remedy(env)}"
            )
    _check_tasks(env)
    _check_mpi(env)


def check_world(devices: int, nodes: int, env: Mapping[str, str] = os.environ) -> None:
    """Raise `LaunchError` if the environment speaks of another number of processes than the configuration.

    Args:
        devices: processes on this machine.
        nodes: machines.
        env: the environment.

    Example:
        >>> check_world(1, 1, {"RANK": "0", "WORLD_SIZE": "1"})
        >>> check_world(1, 1, {"WORLD_SIZE": "4", "RANK": "2"})
        Traceback (most recent call last):
            ...
        lightning_attack.cli.launch.LaunchError: the environment speaks of other processes (RANK=2, WORLD_SIZE=4) ...
        if they were left by another job: env -u RANK -u WORLD_SIZE lightning-attack ...; if something else starts ...
    """
    by = launcher(env)
    tasks = env.get("SLURM_NTASKS", "") if _slurm_counts(env) else ""
    if tasks.isdecimal() and by != "torchrun" and int(tasks) != devices * nodes:
        raise LaunchError(
            f"this SLURM job has {tasks} task{'s' * (tasks != '1')}, but trainer.devices={devices} times "
            f"trainer.num_nodes={nodes} are {devices * nodes}\n"
            "start one task for each device, as configs/cluster/slurm.sbatch does; to ignore SLURM: env -u "
            f"SLURM_NTASKS {program()} ..."
        )
    if by is not None or tasks:
        return
    limits = {"WORLD_SIZE": devices * nodes + 1, "RANK": devices * nodes, "LOCAL_RANK": devices, "NODE_RANK": nodes}
    said = {name: int(env[name]) for name in limits if name in env}
    unfit = {name for name, value in said.items() if value >= limits[name]}
    if unfit or said.get("WORLD_SIZE", devices * nodes) != devices * nodes:
        raise LaunchError(
            f"the environment speaks of other processes ({said_by(env)}) than trainer.devices={devices} times "
            f"trainer.num_nodes={nodes}\n{remedy(env)}; if something else starts the processes, give "
            "--trainer.devices, --trainer.num_nodes and --trainer.strategy=ddp"
        )


def said_by(env: Mapping[str, str] = os.environ) -> str:
    """The variables of the environment by which processes find each other, with their values."""
    return ", ".join(f"{name}={env[name]}" for name in VARIABLES if name in env)


def remedy(env: Mapping[str, str] = os.environ, nodes: int = 2) -> str:
    """How to start this program without what another job has left in the environment.

    Args:
        env: the environment.
        nodes: machines of the run; with one, nothing has to be started elsewhere.
    """
    if launcher(env) == "lightning":
        if nodes == 1:
            return "this program starts them itself, on this machine; if one fails, its own message says why"
        return (
            "give the same command on every machine, with NODE_RANK=0, 1, ... and the MASTER_ADDR of the first; or use "
            "configs/cluster/torchrun.sh"
        )
    unset = " ".join(f"-u {name}" for name in VARIABLES if name in env)
    if not unset:
        return "if one has failed, its own message says why"
    return f"if they were left by another job: env {unset} {program()} ..."


def _check_tasks(env: Mapping[str, str]) -> None:
    """SLURM's variables in a shell of a job: only `srun` starts all tasks."""
    tasks = env.get("SLURM_NTASKS", "1")
    alone = not _in_step(env) and ("SLURM_PROCID" not in env or "SLURM_STEP_ID" in env)
    if _slurm_counts(env) and tasks.isdecimal() and int(tasks) > 1 and alone and launcher(env) is None:
        raise LaunchError(
            f"this is a shell of a SLURM job of {tasks} tasks (SLURM_NTASKS={tasks}), and this process was not started "
            f"by srun: it would wait for {int(tasks) - 1} others\n"
            f"all tasks: srun {program()} ...; this one alone: env -u SLURM_NTASKS {program()} ..."
        )


def _check_mpi(env: Mapping[str, str]) -> None:
    """Processes of `mpirun`: Lightning asks mpi4py about them; without it each would be a run of its own."""
    sizes = {name: env[name] for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE") if env.get(name, "1") not in ("0", "1")}
    known = launcher(env) is not None or _slurm_counts(env) or "WORLD_SIZE" in env
    if sizes and not known and find_spec("mpi4py") is None:
        name, size = next(iter(sizes.items()))
        raise LaunchError(
            f"mpirun started {size} processes ({name}={size}), and without the package mpi4py each of them would "
            "attack all photos\n"
            f"install it, or start {program()} once, without mpirun, with --trainer.devices={size}; to run alone: env "
            f"-u {name} {program()} ..."
        )


def _slurm_counts(env: Mapping[str, str]) -> bool:
    """Whether Lightning goes by SLURM's variables; it does not in shells of these names."""
    return "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def _in_step(env: Mapping[str, str]) -> bool:
    step = env.get("SLURM_STEP_ID", env.get("SLURM_STEPID", ""))
    return step.isdecimal() and int(step) < _SPECIAL_STEPS

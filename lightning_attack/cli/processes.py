"""`MeetingDDP`: Lightning's `ddp`, in which missing processes are an error within minutes, not after half a day."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from lightning_attack.cli.errors import UsageError
from lightning_attack.cli.launch import STARTED_BY, LaunchError, check_world, launcher, remedy, said_by

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other in a run: attacks differ in cost, and the first process checks all photos."""

MEETING = timedelta(minutes=10)
"""How long they wait for each other at its begin."""

_SOON, _QUIET = 1.0, 15.0
"""Seconds after which it is said that others are waited for: if nobody is known to have started them, and if so."""


class MeetingDDP(DDPStrategy):
    """DDP with two kinds of patience: `MEETING` until all processes are there, and `timeout` from then on."""

    _store: Any = None

    def meet(self) -> None:
        """Wait for the other processes, if somebody else has started them, and before anything that takes long.

        Raises:
            LaunchError: they do not come.
        """
        if self._store is not None or dist.is_initialized() or not dist.is_available():
            return
        advice = remedy(nodes=self.num_nodes)  # before Lightning and this process set variables that nobody has left
        environment = self.cluster_environment
        assert environment is not None
        self.set_world_ranks()
        rank, size = environment.global_rank(), environment.world_size()
        _check_address(environment.main_address, self.num_nodes, advice)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        with _notice(rank, size, advice, _QUIET if launcher() and self.num_nodes == 1 else _SOON):
            try:
                meeting = dist.rendezvous("env://", rank, size, timeout=MEETING)
                self._store = next(iter(meeting))[0]
            except (dist.DistError, RuntimeError, ValueError) as error:
                if "EADDRINUSE" in str(error):
                    raise LaunchError(
                        f"MASTER_PORT={environment.main_port} is in use by another program\n{advice}; or choose "
                        "another port, the same for all processes"
                    ) from error
                raise LaunchError(
                    f"process {rank} of {size} waited {_minutes()} for the others in vain ({said_by()})\n"
                    f"see why they did not start; {advice}"
                ) from error
        self._store.set_timeout(self._timeout)

    def setup_distributed(self) -> None:
        self.meet()
        if self._store is not None and not dist.is_initialized():
            environment = self.cluster_environment
            assert environment is not None
            dist.init_process_group(
                self._get_process_group_backend(),
                store=self._store,
                rank=environment.global_rank(),
                world_size=environment.world_size(),
                timeout=self._timeout,
                device_id=None if self.root_device.type == "cpu" else self.root_device,
            )
        super().setup_distributed()  # finds the group


def register() -> None:
    """Let `ddp`, which Lightning also chooses by itself for several devices, be `MeetingDDP`."""
    StrategyRegistry.register("ddp", MeetingDDP, override=True, start_method="popen", timeout=PATIENCE)


def join(trainer: Trainer) -> None:
    """Check that the environment fits the trainer, and meet the other processes if they run already.

    Raises:
        LaunchError: it does not fit, or the others do not come.
    """
    strategy: Any = trainer.strategy
    cores = os.cpu_count() or 1
    if strategy.root_device.type == "cpu" and trainer.num_devices > 2 * cores:
        raise UsageError(
            f"trainer.devices={trainer.num_devices} on the CPU are as many processes, and this machine has {cores} "
            f"core{'s' * (cores > 1)}\ngive fewer devices, or a machine with GPUs (--trainer.accelerator=gpu)"
        )
    check_world(trainer.num_devices, trainer.num_nodes)
    environment = getattr(strategy, "cluster_environment", None)
    if environment is None or not isinstance(strategy, DDPStrategy):
        return
    if not environment.creates_processes_externally:
        if "MASTER_ADDR" in os.environ:
            _check_address(os.environ["MASTER_ADDR"], trainer.num_nodes, remedy(nodes=trainer.num_nodes))
        os.environ[STARTED_BY] = str(os.getpid())  # the others will know their parent by it
    elif isinstance(strategy, MeetingDDP) and trainer.world_size > 1:
        strategy.meet()


def _check_address(address: str, nodes: int, advice: str) -> None:
    """Raise `LaunchError` with advice if there is no such machine, or one machine is enough and it is another one."""
    try:
        places = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
        if nodes > 1:
            return
        for family, kind, protocol, _, place in places:
            try:
                with socket.socket(family, kind, protocol) as test:
                    return test.bind(place)  # of this machine
            except OSError:
                continue
        problem = "is another machine, but trainer.num_nodes is 1"
    except OSError as error:
        problem = f"is no machine that can be found ({error.strerror or error})"
    raise LaunchError(f"MASTER_ADDR={address} {problem}\n{advice}")


@contextmanager
def _notice(rank: int, size: int, advice: str, after: float) -> Iterator[None]:
    """Say what is waited for, if it takes longer than so many seconds."""
    others = f"{size - 1} other{'s' * (size > 2)} of this run ({said_by()})"
    text = f"Process {rank} waits for {others}, {_minutes()} at most; {advice}"
    timer = Timer(after, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _minutes() -> str:
    return f"{MEETING.total_seconds() / 60:g} minutes"

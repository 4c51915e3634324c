"""Processes of their own for tests and for what is measured."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path


def clean_processes() -> BaseContext:
    """Processes that have imported what takes three seconds to import and done nothing yet: copies of one.

    A copy of the process of the tests would not do: torch refuses gradients in it once they were taken before.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.benchmarks.steps", "lightning_attack.cli.predict", "lightning_attack.cli.fit"]
    )
    return context


def run_command(words: Sequence[str], cwd: Path, environment: Mapping[str, str], said: Path) -> int:
    """Run `python main.py ...` in a clean process; returns its exit code. What it says goes to a file."""
    process = clean_processes().Process(target=_become, args=(list(words), str(cwd), dict(environment), str(said)))
    process.start()
    process.join()
    return process.exitcode


def _become(words: list[str], cwd: str, environment: dict[str, str], said: str) -> None:
    """End this process as the command would end its own."""
    code = 70
    with open(said, "w") as output:
        try:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.stdout = sys.stderr = output
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            import torch

            from lightning_attack.cli.main import main

            torch.set_num_threads(1)
            # By these Lightning starts the other processes of a run.
            sys.argv, sys.modules["__main__"].__spec__ = words, None
            code = main(words[1:])
        except BaseException:
            traceback.print_exc()
        finally:
            output.flush()
            os._exit(code)

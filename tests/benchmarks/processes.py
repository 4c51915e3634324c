"""Processes of their own for what is measured."""

import multiprocessing
from multiprocessing.context import BaseContext


def clean_processes() -> BaseContext:
    """Processes that have imported what benchmarks need and done nothing yet: copies of one that is started once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.steps", "lightning_attack.models.acceleration"])
    return context

"""The commands, by their names: where each is, and what it does."""

from __future__ import annotations

from typing import NamedTuple

ABOUT = "How well do adversarial examples made on one segmentation network fool the others?"


class Command(NamedTuple):
    """A command.

    Attributes:
        module: the module of `lightning_attack.cli` whose `run(words)` returns the exit code.
        does: what it does.
        runs: whether it runs networks, perhaps as one of several processes.
    """

    module: str
    does: str
    runs: bool = True


COMMANDS = {
    "predict": Command("predict", "attack a network, and score it and others on the adversarial images"),
    "fit": Command("fit", "train a network"),
    "validate": Command("fit", "mIoU of a network on the photos of data.val"),
    "test": Command("fit", "the same as validate, under Lightning's name"),
    "export": Command("export", "write the network of a checkpoint to one file for predict", runs=False),
    "universal": Command("universal", "learn one perturbation for all photos of a data set"),
    "attacks": Command("attacks", "list the attacks: year, kind, cost, and what each does", runs=False),
    "study": Command("study", "run every attack of a file on every network in it"),
    "benchmark": Command("benchmark", "run attacks on a fixed set of networks, defences and photos"),
    "report": Command("report", "compare finished runs: tables, intervals and a page", runs=False),
    "clean": Command("clean", "drop what finished runs no longer need: many small files", runs=False),
    "figure": Command("figure", "draw finished runs for a paper: pictures, curves, a matrix", runs=False),
}

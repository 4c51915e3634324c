"""A study: many runs of `predict` from one file. Knows the command line, and is known by it alone."""

from lightning_attack.study.command import study

__all__ = ["study"]

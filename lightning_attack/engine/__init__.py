"""Frozen networks made fast: knows torch, and no attack and no network of the project."""

from lightning_attack.engine.network import Kind, Precision, PreparedNetwork, prepare

__all__ = ["Kind", "Precision", "PreparedNetwork", "prepare"]

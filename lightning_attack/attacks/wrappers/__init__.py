"""Wrappers: attacks made of other attacks, or of one from another library."""

from lightning_attack.attacks.wrappers.base import Wrapper
from lightning_attack.attacks.wrappers.function_attack import FunctionAttack
from lightning_attack.attacks.wrappers.peer import Peer
from lightning_attack.attacks.wrappers.per_window import PerWindow
from lightning_attack.attacks.wrappers.start_from import StartFrom
from lightning_attack.attacks.wrappers.until_fooled import UntilFooled
from lightning_attack.attacks.wrappers.worst_case import WorstCase

__all__ = ["FunctionAttack", "Peer", "PerWindow", "StartFrom", "UntilFooled", "WorstCase", "Wrapper"]

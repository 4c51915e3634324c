"""`AttackError`, in a file of its own so that every module of the attacks can import it."""

from lightning_attack.common.errors import UserError


class AttackError(UserError, ValueError):
    """An attack that does not fit the model or the labels; the message says what to change."""

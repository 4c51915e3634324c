"""`AttackError`: what only the first look at the model can show."""

from lightning_attack.common.errors import UserError


class AttackError(UserError, ValueError):
    """An attack that does not fit the model or the labels; the message says what to change."""

"""`AttackError`: what only the first look at the model can show."""


class AttackError(ValueError):
    """An attack that does not fit the model or the labels; the message says what to change."""

"""What can be wrong with the folder of a run."""

from lightning_attack.common.errors import UserError


class RunError(UserError, OSError):
    """A folder that a run cannot have: of other settings, or in use. The message says what to do."""


class RunsError(UserError, ValueError):
    """Finished runs that cannot be read, or not be compared; the message says which, why, and what to do."""

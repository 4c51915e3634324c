"""What can be wrong with the folder of a run."""


class RunError(OSError):
    """A folder that a run cannot have: of other settings, or in use. The message says what to do."""


class RunsError(ValueError):
    """Finished runs that cannot be read, or not be compared; the message says which, why, and what to do."""

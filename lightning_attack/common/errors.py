"""The base class of errors that are a message to the user."""


class UserError(Exception):
    """What was asked for cannot work; the text says what was given, what is allowed and how to mend it.

    The command line prints it without a traceback and ends with exit code 2. Each room has a subclass of its own, such
    as `AttackError`, which is a `ValueError` too.
    """

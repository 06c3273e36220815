"""The error that a user can fix."""


class UsageError(Exception):
    """Something outside the code is wrong: the message says what, where, and what to do."""

"""The error that a user can fix."""


class UsageError(Exception):
    """Something outside the code is wrong: the message names the problem, the place and the remedy."""

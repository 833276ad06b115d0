"""potstill: turn a GPT into a tiny classifier."""

__version__ = "0.1.0"


class UserError(Exception):
    """Something the user can mend. The message is one sentence that says what, where and how."""


class UsageError(UserError):
    """A flag or argument that does not fit; the command line ends with code 2."""

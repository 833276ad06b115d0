"""Errors of potstill."""


class PotstillError(Exception):
    """The base of all errors that potstill raises on purpose."""


class UserError(PotstillError):
    """Something the user can mend. The message is one sentence that says what, where and how."""


class UsageError(UserError):
    """A setting or argument that does not fit; the command line ends with code 2."""

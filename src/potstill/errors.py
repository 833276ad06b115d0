"""Errors of potstill."""


class PotstillError(Exception):
    """The base of all errors that potstill raises on purpose."""


class UserError(PotstillError):
    """Something the user can mend. The message is one sentence that says what, where and how."""


class UsageError(UserError):
    """A setting or argument that does not fit; the command line ends with code 2."""


def missing_extra(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return an error that says how to install what is missing; `error` itself if that is a module
    of potstill."""
    if (error.name or "potstill").startswith("potstill"):
        return error
    message = f"{error.name} is not installed; pip install 'potstill[train]' brings it."
    return ModuleNotFoundError(message, name=error.name)

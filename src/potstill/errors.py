"""The errors of potstill."""

from typing import Any, get_args

# What brings a package; the others are in the extra `train`.
EXTRAS = dict.fromkeys(("datasets", "pandas", "pyarrow"), "data") | dict.fromkeys(
    ("fastapi", "prometheus_client", "pydantic", "starlette", "uvicorn"), "serve"
)


class PotstillError(Exception):
    """Base class of all errors that potstill raises on purpose."""


class UserError(PotstillError):
    """An error that the user can fix: one sentence says what is wrong, where, and what to do."""


class UsageError(UserError):
    """A wrong setting or argument; the command line exits with code 2."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


def check(field: str, value: object, valid: bool, expected: str) -> None:
    """Raise a `UsageError` that says what `field` takes, unless its value is `valid`."""
    if not valid:
        raise UsageError(f"`{field}` {value} is out of range: it takes {expected}.")


def check_choice(field: str, value: object, choices: Any) -> None:
    """Raise a `UsageError` unless the value of `field` is one of `choices`, a `Literal`."""
    *names, last = get_args(choices)
    check(field, value, value in (*names, last), f"{', '.join(names)} or {last}")


def missing_extra(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return an error that says how to install what is missing; `error` itself if that is a module
    of potstill."""
    if (error.name or "potstill").startswith("potstill"):
        return error
    extra = EXTRAS.get(error.name or "", "train")
    message = f"{error.name} is not installed; pip install 'potstill[{extra}]' brings it."
    return ModuleNotFoundError(message, name=error.name)

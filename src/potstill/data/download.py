"""Access to the network: whether a host answers, and downloading one file."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Generic, TypeVar

# What speaks HTTP is imported where it is used: a model in a local folder loads without it.

T = TypeVar("T")


class Answer(Generic[T]):
    """What a call returns that may take for ever: it runs in a thread of its own.

    Name resolution has no time limit, and libraries limit each wait, not all of them together.
    """

    def __init__(self, call: Callable[[], T]):
        self._call, self._done = call, threading.Event()
        self._result: list[T] = []
        self._error: Exception | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except Exception as error:  # given to who asks for the value
            self._error = error
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Return whether it has ended, after at most `seconds`."""
        return self._done.wait(seconds)

    def value(self) -> T:
        """Return what the call returned, or raise what it raised; only after it has ended."""
        if self._error is not None:
            raise self._error
        return self._result[0]


def in_time(call: Callable[[], T], seconds: float) -> T:
    """Return what `call` returns.

    Raises:
        TimeoutError: It takes longer than `seconds`; it is left to itself then.
        Exception: What it raises.
    """
    answer = Answer(call)
    if not answer.wait(seconds):
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return answer.value()


@cache
def reachable(url: str, seconds: float = 2.0) -> bool:
    """Return True if `url` answers within `seconds`; checked once per process."""
    import urllib.request
    from http.client import HTTPException

    def ask() -> bool:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=seconds):
            return True

    try:
        return in_time(ask, seconds)
    except (OSError, ValueError, HTTPException):
        return False


def fetch(url: str, limit: int, seconds: float = 25.0) -> bytes:
    """Return the body of `url`.

    Raises:
        OSError: it can't be downloaded within `seconds`, or is larger than `limit` bytes.
    """
    import urllib.request
    from http.client import HTTPException

    def ask() -> bytes:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            body: bytes = answer.read(limit + 1)
            return body

    try:
        body = in_time(ask, seconds)
    except HTTPException as error:
        raise OSError(f"a broken answer, {error!r}") from error
    if len(body) > limit:
        raise OSError(f"more than {limit} bytes")
    return body

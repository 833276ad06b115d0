"""Access to the network: whether a host answers, and downloading one file."""

import queue
import threading
from functools import cache

# What speaks HTTP is imported where it is used: a model in a local folder loads without it.


@cache
def reachable(url: str, seconds: float = 2.0) -> bool:
    """Return True if `url` answers within `seconds`; checked once per process.

    Checked in a thread of its own, as name resolution has no timeout.
    """
    import urllib.request
    from http.client import HTTPException

    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                answers.put(True)
        except (OSError, ValueError, HTTPException):
            answers.put(False)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return False


def fetch(url: str, limit: int, seconds: float = 30.0) -> bytes:
    """Return the body of `url`.

    Raises:
        OSError: it can't be downloaded, or is larger than `limit` bytes.
    """
    import urllib.request
    from http.client import HTTPException

    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            body = answer.read(limit + 1)
    except HTTPException as error:
        raise OSError(f"a broken answer, {error!r}") from error
    if len(body) > limit:
        raise OSError(f"more than {limit} bytes")
    return body

"""Parsing JSON that anybody may have written."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is none, is nested too deep, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def reason(error: Exception) -> str:
    """Return what a parser or a library says, in one line without its full stop."""
    text = str(error)
    if isinstance(error, json.JSONDecodeError):
        text = f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return " ".join(text.split())[:300].rstrip(".") or type(error).__name__

"""Goals that thresholds are chosen for, as a user writes them.

mcc, accuracy, macro_f1             the greatest on all sentences
precision@R                         the greatest precision with a recall of at least R
recall@P                            the greatest recall with a precision of at least P
precision@R:CLASS, recall@P:CLASS   those of one class
"""

import re
from dataclasses import dataclass

from potstill.errors import UsageError

MEASURES = ("mcc", "accuracy", "macro_f1")


@dataclass(frozen=True)
class Goal:
    """A goal that was read: a measure, for precision and recall the least value of the other, and
    the class that they are about, or "" for all."""

    measure: str
    least: float = 0.0
    label: str = ""


def parse_goal(text: str) -> Goal | None:
    """Return the goal that `text` names; None for "none".

    Raises:
        UsageError: It names none.
    """
    if text == "none":
        return None
    if text in MEASURES:
        return Goal(text)
    match = re.fullmatch(r"(precision|recall)@(\d*\.?\d+)(?::(.+))?", text)
    if not match or not 0 < float(match[2]) <= 1:
        raise UsageError(
            f"`goal` {text!r} is not known: it takes none, {', '.join(MEASURES)}, precision@R or "
            "recall@P, the last two also with :CLASS; R and P are above 0 and at most 1."
        )
    return Goal(match[1], float(match[2]), match[3] or "")

"""Labels: what a value in a file means as the name of a class."""

import math
import numbers
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from potstill.errors import UserError

WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
# How pandas and spreadsheets write a label that is missing.
MISSING = {"nan", "<na>", "nat", "#n/a"}
NO_TEXT = "the sentence is empty; write it, or remove the row"
NO_LABEL = "the label is empty; write it, or remove the row"


def as_label(value: Any) -> tuple[str, str]:
    """Return a value as a label, and what is wrong with it, or "".

    1, 1.0 and "1" are one label, and so are True and "true".
    """
    if value is None or str(value) in ("<NA>", "NaT"):
        return "", NO_LABEL
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower(), ""
    if isinstance(value, numbers.Integral):
        return str(int(value)), ""
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isnan(number):
            return "", NO_LABEL
        if math.isinf(number):
            return str(number), f"label {number} is neither a string nor a number"
        return str(int(number)) if number.is_integer() else str(number), ""
    if isinstance(value, list | tuple | set | dict | np.ndarray):
        return str(value), (
            f"label {value!r} is neither a string nor a number; a row has one label: with several, "
            "train one classifier for each, with a column of yes and no"
        )
    label = str(value).strip()
    if not label:
        return "", NO_LABEL
    if label.lower() in MISSING:
        return label, f"label {label!r} is that of a row without a label; remove the row"
    return label, _surrogate(label, "label")


def as_text(value: Any) -> tuple[str, str]:
    """Return a value as a text, and what is wrong with it, or ""."""
    missing = value is None or str(value) in ("<NA>", "NaT")
    if missing or (isinstance(value, float) and math.isnan(value)):
        return "", NO_TEXT
    if not isinstance(value, str):
        return str(value), "the text is not a string"
    text = value.strip()
    return text, _surrogate(text, "text") if text else NO_TEXT


def _surrogate(text: str, what: str) -> str:
    """Return what is wrong with a text that is no Unicode, such as JSON's "\\ud83d" alone."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"its character {error.start + 1} is {text[error.start]!r}, half of a surrogate pair"
        return f"the {what} is not valid Unicode: {half}"
    return ""


def canonical_labels(names: Iterable[str]) -> dict[str, str]:
    """Return one spelling of each label: whole numbers without ".0", booleans in lower case.

    Labels among which there is any other are left as they are.
    """
    names = set(names)
    if all(WHOLE.fullmatch(name) for name in names):
        return {name: name.partition(".")[0] for name in names}
    if {name.lower() for name in names} <= {"true", "false"}:
        return {name: name.lower() for name in names}
    return {name: name for name in names}


def class_names(file: str, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes that `labels` name: numbers in their order, others in the alphabet's.

    Raises:
        UserError: There is one only.
    """
    names = set(labels)
    if len(names) < 2:
        raise UserError(f"{file} has one label only, {names.pop()!r}; a classifier needs two.")
    if all(WHOLE.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))

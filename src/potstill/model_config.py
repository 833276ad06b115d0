"""The config.json of a saved model, checked before anything is made of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files import read_json


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100
    )  # not NaN either


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**31


def _labels(value: Any) -> bool:
    return isinstance(value, list) and all(_text(v) or _number(v) for v in value)


# What predicting reads: the keys down to a value, and what the value has to be.
VALUES: dict[tuple[str, ...], tuple[Callable[[Any], bool], str]] = {
    ("labels",): (_labels, "a list of names"),
    ("max_length",): (lambda v: _whole(v, 1), "a whole number from 1"),
    ("start_token",): (lambda v: _whole(v, 0), "the number of a token"),
    ("parameters", "total"): (lambda v: _whole(v, 0), "a whole number"),
    ("decoder", "variant"): (_text, "a name"),
    ("decoder", "title"): (_text, "a name"),
    ("decoder", "sha256"): (_text, "a hash"),
    ("calibration", "temperature"): (lambda v: _number(v) and v > 0, "a number over 0"),
    ("decision", "offsets"): (lambda v: isinstance(v, list) and all(map(_number, v)), "numbers"),
    ("decision", "threshold"): (lambda v: _number(v) and 0 <= v <= 1, "a probability"),
    ("data", "name"): (_text, "a name"),
}


def read_model_config(file: Path, *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the config.json of a model.

    Args:
        file: The file.
        required: Keys that it must have.

    Raises:
        UserError: It is missing, damaged, or says what can't be.
    """
    config = read_json(file)
    if not isinstance(config, dict):
        raise UserError(f"{file} is damaged: it is no JSON object; train the model again.")
    for key in required:
        if config.get(key) is None:
            raise UserError(f"{file} is damaged: it has no {key}; train the model again.")
    for path, (valid, expected) in VALUES.items():
        value: Any = config
        for key in path:
            if not isinstance(value, dict):
                raise UserError(f"{file} is damaged: {path[0]} is no JSON object.")
            value = value.get(key)
            if value is None:
                break
        if value is not None and not valid(value):
            shown = f"{'.'.join(path)} {value!r:.60}"
            raise UserError(f"{file} is damaged: {shown} is not {expected}.")
    labels, decision = config.get("labels"), config.get("decision")
    if labels and decision and len(labels) != len(decision.get("offsets") or ()):
        raise UserError(f"{file} is damaged: decision has not an offset for each label.")
    return config

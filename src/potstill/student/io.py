"""A student on disk."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from potstill.errors import UserError
from potstill.files import STUDENT_TOKENIZER, STUDENT_WEIGHTS, write_tensors
from potstill.manifest import check_manifest
from potstill.model_config import read_model_config
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import read_tokenizer


def save_student(model: DistilRNN, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights and tokenizer into `folder`."""
    write_tensors(folder / STUDENT_WEIGHTS, model.state_dict())
    tokenizer.save(str(folder / STUDENT_TOKENIZER), pretty=False)


def load_student(folder: Path) -> tuple[DistilRNN, Tokenizer, dict[str, Any]]:
    """Return a saved student in evaluation mode, its tokenizer and its config.json.

    Raises:
        UserError: There is no student, it is damaged, or its files do not fit each other.
    """
    check_manifest(folder, ("config.json", STUDENT_WEIGHTS, STUDENT_TOKENIZER))
    if "student" not in (config := read_model_config(folder / "config.json")):
        raise UserError(f"{folder} holds no student (config.json does not describe one).")
    for key in ("labels", "max_length"):
        if config.get(key) is None:
            raise UserError(f"{folder}/config.json is damaged (no {key}); train it again.")
    network, n_labels = config["student"], len(config["labels"])
    try:
        student_config = StudentConfig(**network)
        _check_shapes(student_config, folder / STUDENT_WEIGHTS)
        model = DistilRNN(student_config)
        model.load_state_dict(load_file(folder / STUDENT_WEIGHTS))
        tokenizer = read_tokenizer(folder / STUDENT_TOKENIZER)
    except Exception as error:  # safetensors and tokenizers raise their own kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"the student in {folder} can't be read: {reason[:300]}; train it again."
        ) from error
    n_tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    expected = (model.config.classes, model.config.vocab_size)
    if (n_labels, n_tokens) != expected:
        raise UserError(
            f"the files in {folder} do not belong together: {n_labels} labels and {n_tokens} "
            f"tokens for a student of {model.config.classes} and {model.config.vocab_size}."
        )
    return model.eval(), tokenizer, config


def _check_shapes(config: StudentConfig, file: Path) -> None:
    """Check that a student of `config` has the tensors of `file`, before it takes memory.

    Raises:
        ValueError: It has others.
    """
    with safe_open(file, "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    expected = expected_shapes(config, len(shapes), file.name)
    if misfits := {k for k in expected.keys() | shapes.keys() if expected.get(k) != shapes.get(k)}:
        raise ValueError(f"{min(misfits)} has another shape than config.json says")


def expected_shapes(config: StudentConfig, tensors: int, file: str) -> dict[str, list[int]]:
    """Return the shape of each tensor of a student of `config`, without memory for them.

    Args:
        config: As anybody may have written it.
        tensors: How many the student's file has.
        file: The name of that file.

    Raises:
        ValueError: The student has more layers than the file has tensors; even without memory they
            would take hours.
    """
    if config.layers > tensors:
        raise ValueError(f"config.json has {config.layers} layers, {file} fewer")
    with torch.device("meta"):
        return {name: list(x.shape) for name, x in DistilRNN(config).state_dict().items()}

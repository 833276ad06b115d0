"""A student on disk."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tokenizers import Tokenizer

from potstill.errors import UserError
from potstill.files import STUDENT_TOKENIZER, STUDENT_WEIGHTS, read_json, write_tensors
from potstill.student.model import DistilRNN, StudentConfig


def save_student(model: DistilRNN, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes weights and tokenizer into `folder`."""
    write_tensors(folder / STUDENT_WEIGHTS, model.state_dict())
    tokenizer.save(str(folder / STUDENT_TOKENIZER))


def read_student(folder: Path) -> tuple[DistilRNN, Tokenizer]:
    """A saved student in evaluation mode, and its tokenizer.

    Raises:
        UserError: no student there, or one that is damaged.
    """
    shape = read_json(folder / "config.json").get("student")
    if shape is None:
        raise UserError(f"{folder} holds no student (config.json does not describe one).")
    try:
        model = DistilRNN(StudentConfig(**shape))
        model.load_state_dict(load_file(folder / STUDENT_WEIGHTS))
        tokenizer = Tokenizer.from_file(str(folder / STUDENT_TOKENIZER))
    except Exception as error:  # safetensors and tokenizers raise their own kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"the student in {folder} can't be read: {reason[:300]}; train it again."
        ) from error
    return model.eval(), tokenizer


def load_student(folder: Path) -> tuple[DistilRNN, Tokenizer, dict[str, Any]]:
    """A student, its tokenizer and its config.json, once they fit each other."""
    config = read_json(folder / "config.json")
    try:
        model, tokenizer = read_student(folder)
        shape = (len(config["labels"]), tokenizer.get_vocab_size(), int(config["max_length"]) > 0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}/config.json is damaged ({error}); train it again.") from error
    if shape != (model.config.classes, model.config.vocab_size, True):
        raise UserError(
            f"the files in {folder} do not belong together: {shape[0]} labels and {shape[1]} "
            f"tokens for a student of {model.config.classes} and {model.config.vocab_size}."
        )
    return model, tokenizer, config

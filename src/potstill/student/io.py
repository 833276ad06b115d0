"""A student on disk."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tokenizers import Tokenizer

from potstill.errors import UserError
from potstill.files import STUDENT_TOKENIZER, STUDENT_WEIGHTS, read_json, write_tensors
from potstill.manifest import check_manifest
from potstill.student.model import DistilRNN, StudentConfig


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
    config = read_json(folder / "config.json")
    if isinstance(config, dict) and "student" not in config:
        raise UserError(f"{folder} holds no student (config.json does not describe one).")
    try:
        network = config["student"]
        n_labels, max_length = len(config["labels"]), int(config["max_length"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}/config.json is damaged ({error}); train it again.") from error
    try:
        model = DistilRNN(StudentConfig(**network))
        model.load_state_dict(load_file(folder / STUDENT_WEIGHTS))
        tokenizer = Tokenizer.from_file(str(folder / STUDENT_TOKENIZER))
    except Exception as error:  # safetensors and tokenizers raise their own kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"the student in {folder} can't be read: {reason[:300]}; train it again."
        ) from error
    n_tokens = tokenizer.get_vocab_size()
    expected = (model.config.classes, model.config.vocab_size)
    if (n_labels, n_tokens) != expected or max_length <= 0:
        raise UserError(
            f"the files in {folder} do not belong together: {n_labels} labels and {n_tokens} "
            f"tokens for a student of {model.config.classes} and {model.config.vocab_size}."
        )
    return model.eval(), tokenizer, config

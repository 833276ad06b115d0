"""Load the teacher of a student."""

from pathlib import Path

from potstill.errors import UserError
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.load import load
from potstill.training.distributed import process


def load_teacher(
    model_path: Path, *, gpt_variant: str | None = None, precision: str = "auto"
) -> DecoderClassifier:
    """Load an adapter as `load` does; of several processes the first goes first.

    Raises:
        UserError: As `load`; or the model is a student.
    """
    with process().main_process_first():
        teacher = load(model_path, gpt_variant=gpt_variant, precision=precision)
    if not isinstance(teacher, DecoderClassifier):
        raise UserError(f"`model_path` {model_path} is a student; a teacher is a LoRA adapter.")
    return teacher

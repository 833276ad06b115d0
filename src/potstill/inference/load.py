"""Load a saved model of any kind."""

from pathlib import Path

from potstill.errors import UserError, missing_extra
from potstill.files import ADAPTER_CONFIG, STUDENT_ONNX, STUDENT_WEIGHTS
from potstill.inference.classifier import Classifier
from potstill.inference.locate import resolve_model
from potstill.inference.onnx import OnnxClassifier
from potstill.pretrained import COLA

# What runs torch is imported where it is needed: an exported student does without.


def load(
    path: str | Path | None = None,
    *,
    gpt_variant: str | None = None,
    precision: str = "auto",
) -> Classifier:
    """Load a saved model: a student, an exported student, or a LoRA adapter with its base model.

    Args:
        path: Folder of the model, or its name on the Hugging Face Hub, owner/name. Default: the
            bundled student, which is exported, so that torch is not loaded. (The commands `predict`
            and `evaluate` default to the newest model in runs/ instead.)
        gpt_variant: An adapter's base model. Default: the one that the adapter names.
        precision: Arithmetic of a decoder: "bf16", "fp32", or "auto": bf16 where the hardware
            speeds it up.

    Returns:
        A `DecoderClassifier`, `StudentClassifier` or `OnnxClassifier`. A student that is exported
        in its own folder is run by torch where torch is installed, else without.

    Raises:
        UserError: There is no model in the folder or on the Hub, it can't be downloaded, it is
            damaged, or its base model is missing or not the one it was tuned on.
        ModuleNotFoundError: The model needs torch, which is not installed.
    """
    folder = COLA if path is None else resolve_model(path)
    if not folder.is_dir():
        raise UserError(
            f"`path` {folder}: there is no such folder; train a model, or name another."
            f"{_runs_nearby(folder)}"
        )
    if (folder / ADAPTER_CONFIG).is_file():
        try:
            from potstill.inference.decoder import DecoderClassifier
        except ModuleNotFoundError as error:
            raise missing_extra(error) from None
        return DecoderClassifier(folder, gpt_variant=gpt_variant, precision=precision)
    exported = (folder / STUDENT_ONNX).is_file()
    if (folder / STUDENT_WEIGHTS).is_file():
        try:
            from potstill.inference.student import StudentClassifier
        except ModuleNotFoundError as error:
            if not exported:
                raise missing_extra(error) from None
        else:
            return StudentClassifier(folder)
    if exported:
        return OnnxClassifier(folder)
    raise UserError(
        f"`path` {folder} holds neither an adapter ({ADAPTER_CONFIG}) nor a student "
        f"({STUDENT_WEIGHTS}).{_runs_nearby(folder)}"
    )


def _runs_nearby(folder: Path) -> str:
    """Return a hint at the runs next to a folder that is none."""
    configs = folder.parent.glob("*/config.json")
    runs = sorted(config.parent for config in configs if config.parent != folder)
    return f" There is {', '.join(map(str, runs))}." if runs else ""

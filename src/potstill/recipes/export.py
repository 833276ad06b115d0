"""The command export: a model in, the same for other programs out: ONNX, or a merged decoder."""

import logging
from collections.abc import Sequence
from pathlib import Path

from potstill.errors import UsageError, UserError
from potstill.files import ADAPTER_CONFIG, STUDENT_WEIGHTS, check_writable
from potstill.inference.classifier import Classifier
from potstill.inference.locate import newest_adapter, newest_student, resolve_model

logger = logging.getLogger(__name__)


def export(
    model_path: Path | None,
    onnx_path: Path | None,
    data: str = "auto",
    *,
    int8: bool,
    merged: bool,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
) -> None:
    """Write a student as ONNX or a decoder merged; see `commands.export`."""
    if merged:
        if data != "auto":
            raise UsageError("a merged decoder is compared without `data`: leave it out.")
        if int8:
            raise UsageError("a merged decoder is fp32: leave out `int8` or `merged`.")
        _export_merged(model_path, onnx_path)
        return
    folder = resolve_model(model_path) if model_path else newest_student()
    if folder is None or not (folder / STUDENT_WEIGHTS).is_file():
        where = "runs/" if folder is None else str(folder)
        adapter = folder is not None and (folder / ADAPTER_CONFIG).is_file()
        hint = "; the adapter there is exported with `merged`" if adapter else ""
        raise UserError(
            f"there is no student in {where}; train one, or name it with `model_path`{hint}."
        )
    target = onnx_path or folder
    check_writable(target, "`onnx_path`")
    from potstill.inference.student import StudentClassifier

    student = StudentClassifier(folder)
    texts = _texts(folder, student, data, text_column, label_column)
    student.export_onnx(target, int8=int8, texts=texts)


def _texts(
    folder: Path,
    student: Classifier,
    data: str,
    text_column: str | Sequence[str] | None,
    label_column: str | None,
) -> list[str]:
    """Return the sentences that the exported student is compared on; none are MiniCoLA's."""
    from potstill.data.corpus import load_evaluation
    from potstill.recipes._corpus import training_corpus

    if data != "auto":
        corpus = load_evaluation(data, tuple(student.classes_), text_column, label_column)
    else:
        try:
            corpus = training_corpus(folder, student)
        except UserError as error:
            logger.warning(f"compared on MiniCoLA's sentences: {error}")
            return []
    return [text for split in corpus.splits.values() for text in split.sentences]


def _export_merged(model_path: Path | None, target: Path | None) -> None:
    folder = resolve_model(model_path) if model_path else newest_adapter()
    if folder is None or not (folder / ADAPTER_CONFIG).is_file():
        where = "runs/" if folder is None else str(folder)
        raise UserError(f"there is no adapter in {where}; tune one, or name it with `model_path`.")
    from potstill.inference.decoder import DecoderClassifier

    target = target or folder.with_name(f"{folder.name}-merged")
    DecoderClassifier(folder, precision="fp32").export_merged(target)

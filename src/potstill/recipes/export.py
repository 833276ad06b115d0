"""The command export: a model in, the same for other programs out: ONNX, or a merged decoder."""

from pathlib import Path

from potstill.errors import UsageError, UserError
from potstill.files import ADAPTER_CONFIG, STUDENT_WEIGHTS, check_writable
from potstill.inference.locate import newest_adapter, newest_student, resolve_model


def export(model_path: Path | None, onnx_path: Path | None, *, int8: bool, merged: bool) -> None:
    """Write a student as ONNX or a decoder merged; see `commands.export`."""
    if merged:
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

    StudentClassifier(folder).export_onnx(target, int8=int8)


def _export_merged(model_path: Path | None, target: Path | None) -> None:
    folder = resolve_model(model_path) if model_path else newest_adapter()
    if folder is None or not (folder / ADAPTER_CONFIG).is_file():
        where = "runs/" if folder is None else str(folder)
        raise UserError(f"there is no adapter in {where}; tune one, or name it with `model_path`.")
    from potstill.inference.decoder import DecoderClassifier

    target = target or folder.with_name(f"{folder.name}-merged")
    DecoderClassifier(folder, precision="fp32").export_merged(target)

"""The command export: a student in, the same as ONNX out."""

from pathlib import Path

from potstill.errors import UserError
from potstill.files import STUDENT_WEIGHTS, check_writable
from potstill.inference.locate import newest_run
from potstill.inference.student import StudentClassifier


def export(model_path: Path | None, onnx_path: Path | None, *, int8: bool) -> None:
    """Write a student as ONNX; see `commands.export`."""
    folder = model_path or newest_run()
    if folder is None or not (folder / STUDENT_WEIGHTS).is_file():
        where = "runs/" if folder is None else str(folder)
        raise UserError(f"there is no student in {where}; train one, or name it with `model_path`.")
    target = onnx_path or folder
    check_writable(target, "`onnx_path`")
    StudentClassifier(folder).export_onnx(target, int8=int8)

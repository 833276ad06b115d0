"""The command export: a student in, the same as ONNX out."""

import shutil
from pathlib import Path

import numpy as np

from potstill.console import say
from potstill.errors import UserError
from potstill.files import (
    STUDENT_ONNX,
    STUDENT_TOKENIZER,
    STUDENT_WEIGHTS,
    check_writable,
    write_json,
)
from potstill.inference.locate import newest_run
from potstill.inference.predictor import load_predictor
from potstill.student.io import load_student
from potstill.student.onnx import write_onnx
from potstill.student.tokenizer import encode
from potstill.training.distributed import predict_logits

# As far as rounding may take a logit of the exported student: of fp32, of 8-bit matrices.
CLOSE = {False: 1e-3, True: 0.5}
NEEDED = ("SR", "labels", "max_length", "student", "parameters", "versions")
PROBES = ["The books on the table are old.", "Is.", "Whom did they say that never not has slept?"]


def export(model_path: Path | None, onnx_path: Path | None, int8: bool) -> None:
    """Writes a student as ONNX and compares the two; see `commands.export`."""
    folder = model_path or newest_run()
    if folder is None or not (folder / STUDENT_WEIGHTS).is_file():
        where = "runs/" if folder is None else str(folder)
        raise UserError(f"there is no student in {where}; train one, or name it by --model_path.")
    target = onnx_path or folder
    if target.exists() and not target.is_dir():
        raise UserError(f"--onnx_path: {target} is a file; name a folder.")
    check_writable(target, "--onnx_path")
    model, tokenizer, config = load_student(folder)
    write_onnx(model, target / STUDENT_ONNX, int8)
    if target.resolve() != folder.resolve():
        shutil.copyfile(folder / STUDENT_TOKENIZER, target / STUDENT_TOKENIZER)
        # What goes out into the world need not tell of folders here.
        write_json(target / "config.json", {key: config[key] for key in NEEDED if key in config})
    exported = load_predictor(target)
    tokens = encode(tokenizer, PROBES, config["max_length"])
    away = np.abs(exported.logits(PROBES) - predict_logits(model, tokens).numpy()).max()
    if not away < CLOSE[int8]:
        (target / STUDENT_ONNX).unlink()
        raise RuntimeError(f"the exported student answers otherwise: logits differ by {away}")
    size = (target / STUDENT_ONNX).stat().st_size
    say(f"exported: {target / STUDENT_ONNX}, {size / 1e6:.2f} MB; logits within {away:.1g}")

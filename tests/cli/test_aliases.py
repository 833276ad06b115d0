"""--output and --teacher, the second names of flags that are folders."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, ToyTask, run_ok

BRIEF = "--epochs 1 --pretrain_epochs 0 " + " ".join(map(str, SMALL))


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("LoRA 1 --gpt_variant {base} --data {toy} --epochs 1 --output out", "adapter_config.json"),
        ("average {teacher} copy --output out", "adapter_config.json"),
        ("transfer 1 --teacher {teacher} --output out --sampled 0 --edited 5", "transfer.json"),
        (f"distil 1 --teacher {{teacher}} --output out {BRIEF}", "model.safetensors"),
        (f"rnn 1 --data {{toy}} --output out {BRIEF}", "model.safetensors"),
    ],
)
def test_a_command_writes_to_its_output(line: str, file: str, toy_task: ToyTask) -> None:
    shutil.copytree(toy_task.teacher, "copy")
    run_ok(
        *shlex.split(line.format(base=toy_task.base, toy=toy_task.toy, teacher=toy_task.teacher))
    )
    assert Path("out", file).is_file()
    assert not Path("runs").exists()


def test_export_writes_to_its_output(toy_task: ToyTask) -> None:
    run_ok(*toy_task.args("rnn", 1, "student", "--epochs", 1))
    run_ok("export", "--model_path", "student", "--output", "out")
    assert Path("out/model.onnx").is_file()
    assert not Path("student/model.onnx").exists()

"""--output and --teacher, which say of each command's folders which is which."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, Bench, done

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
def test_a_command_writes_to_its_output(line: str, file: str, bench: Bench) -> None:
    shutil.copytree(bench.teacher, "copy")
    done(*shlex.split(line.format(base=bench.base, toy=bench.toy, teacher=bench.teacher)))
    assert Path("out", file).is_file()
    assert not Path("runs").exists()


def test_export_writes_to_its_output(bench: Bench) -> None:
    done(*bench.order("rnn", 1, "student", "--epochs", 1))
    done("export", "--model_path", "student", "--output", "out")
    assert Path("out/model.onnx").is_file()
    assert not Path("student/model.onnx").exists()

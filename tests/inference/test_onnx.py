"""An exported student, and what works without torch."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from potstill.cli import main
from potstill.errors import UserError
from potstill.files import (
    MANIFEST,
    STUDENT_ONNX,
    STUDENT_TOKENIZER,
    STUDENT_WEIGHTS,
    write_manifest,
)
from potstill.inference.onnx import OnnxClassifier
from potstill.model_card import CARD
from potstill.student.io import load_student
from potstill.student.tokenizer import encode
from tests.inference.conftest import SENTENCES


@pytest.mark.parametrize("flags", [[], ["--int8"]])
def test_exported_student_predicts_the_same(student, tmp_path, capsys, flags):
    main(args=["predict", *SENTENCES[:20], "--model_path", str(student)])
    expected = capsys.readouterr().out
    main(args=["export", "--model_path", str(student), "--onnx_path", str(tmp_path / "x"), *flags])
    assert "exported: " in capsys.readouterr().out
    names = {file.name for file in (tmp_path / "x").iterdir()}
    assert names == {"config.json", MANIFEST, STUDENT_ONNX, STUDENT_TOKENIZER, CARD}
    main(args=["predict", *SENTENCES[:20], "--model_path", str(tmp_path / "x")])
    predictions = capsys.readouterr().out
    if not flags:
        assert predictions == expected
    assert [line.split()[0] for line in predictions.splitlines()] == [
        line.split()[0] for line in expected.splitlines()
    ]


def test_export_into_the_student_s_own_folder(student, capsys):
    main(args=["export", "--model_path", str(student)])
    first = (student / STUDENT_ONNX).read_bytes()
    main(args=["export", "--model_path", str(student)])
    assert (student / STUDENT_ONNX).read_bytes() == first
    exported = OnnxClassifier(student)
    model, tokenizer, _ = load_student(student)
    for sentence, row in zip(SENTENCES, exported.logits(SENTENCES), strict=True):
        tokens = torch.tensor(encode(tokenizer, [sentence], 16))
        with torch.no_grad():
            alone = model(tokens, torch.tensor([tokens.shape[1]]))[0].numpy()
        np.testing.assert_allclose(row, alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(exported.predict_proba(SENTENCES).sum(1), 1)


# What `pip install potstill` alone does not bring.
TRAIN_EXTRA = (
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "gguf",
    "matplotlib",
    "onnx",
    "sklearn",
)


def test_predict_needs_no_torch(student, run_without):
    main(args=["export", "--model_path", str(student)])
    result = run_without(
        TRAIN_EXTRA, "predict", *SENTENCES[:3], "--model_path", str(student), "--json"
    )
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["sentence"] for line in lines] == SENTENCES[:3]
    expected = OnnxClassifier(student).predict_proba(SENTENCES[:3])
    for line, row in zip(lines, expected, strict=True):
        assert list(line["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-4)


@pytest.mark.parametrize("with_weights", [True, False])
def test_evaluate_needs_no_torch(student, run_without, capsys, with_weights):
    flags = ("evaluate", "--model_path", str(student), "--data", "minicola", "--json")
    config = json.loads((student / "config.json").read_text())
    config["labels"] = ["unacceptable", "acceptable"]  # MiniCoLA's
    (student / "config.json").write_text(json.dumps(config))
    main(args=["export", "--model_path", str(student)])
    capsys.readouterr()
    main(args=list(flags))
    expected = json.loads(capsys.readouterr().out)
    if not with_weights:
        (student / STUDENT_WEIGHTS).unlink()
    result = run_without(TRAIN_EXTRA, *flags)
    assert result.returncode == 0, result.stderr
    scores = json.loads(result.stdout)["scores"]
    assert scores.keys() == {"dev", "ood"}
    for split, split_scores in scores.items():
        assert split_scores["confusion"] == expected["scores"][split]["confusion"]
        assert split_scores["loss"] == pytest.approx(expected["scores"][split]["loss"], abs=1e-5)
    table = run_without(TRAIN_EXTRA, *flags[:-1])
    assert (table.returncode, table.stderr) == (0, "")
    assert "majority class" in table.stdout


@pytest.mark.parametrize("command", [("predict", "One."), ("evaluate", "--data", "minicola")])
def test_nothing_heavy_is_loaded_where_it_is_installed(command):
    heavy = [*TRAIN_EXTRA, "huggingface_hub"]
    script = f"""
import sys
from potstill.cli import main
from potstill.pretrained import COLA
main(args=[*{command}, "--model_path", str(COLA)])
print([name for name in {heavy} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_what_needs_torch_says_so(student, run_without):
    result = run_without(TRAIN_EXTRA, "evaluate", "--model_path", str(student))
    assert (result.returncode, result.stdout) == (1, "")
    message = r"potstill: \w+ is not installed; pip install 'potstill\[train\]' brings it.\n"
    assert re.fullmatch(message, result.stderr)


@pytest.mark.parametrize("file", ["config.json", STUDENT_TOKENIZER, STUDENT_ONNX])
@pytest.mark.parametrize("body", [None, b"", b"damaged"])
def test_a_damaged_file_is_named(student, file, body):
    main(args=["export", "--model_path", str(student)])
    write_manifest(student)
    (student / file).unlink()
    if body is not None:
        (student / file).write_bytes(body)
    with pytest.raises(UserError, match=f"student: {file} is (missing|damaged)"):
        OnnxClassifier(student)
    (student / MANIFEST).unlink()  # as in an export of an earlier version
    with pytest.raises(UserError, match=r"the exported student in .* can't be read"):
        OnnxClassifier(student)


def test_labels_that_do_not_fit_the_model_are_refused(student):
    main(args=["export", "--model_path", str(student)])
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"labels": ["a", "b", "c"]}))
    (student / MANIFEST).unlink()
    with pytest.raises(UserError, match="3 labels"):
        OnnxClassifier(student)


def test_export_without_a_student_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for args in ([], ["--model_path", str(tmp_path)]):
        with pytest.raises(SystemExit) as stop:
            main(args=["export", *args])
        assert stop.value.code == 1
        assert "train one, or name it with --model_path" in capsys.readouterr().err

"""An exported student: made, loaded, asked where there is no torch."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.cli import main
from potstill.data.corpus import load_corpus
from potstill.errors import UserError
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER, STUDENT_WEIGHTS
from potstill.inference.onnx import OnnxClassifier
from potstill.student.io import read_student, save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import encode, train_tokenizer

SENTENCES = load_corpus("minicola").splits["dev"].sentences[:150]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A student as a run leaves it."""
    tokenizer = train_tokenizer(SENTENCES, 500)
    torch.manual_seed(0)
    config = StudentConfig(tokenizer.get_vocab_size(), 2, embedding_size=12, hidden_size=16)
    model = DistilRNN(config)
    folder = tmp_path / "student"
    folder.mkdir()
    save_student(model, tokenizer, folder)
    about = {"labels": ["bad", "good"], "max_length": 16, "student": vars(config)}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("flags", [[], ["--int8"]])
def test_export_and_predict(folder, tmp_path, capsys, flags):
    main(args=["predict", *SENTENCES[:20], "--model_path", str(folder)])
    expected = capsys.readouterr().out
    main(args=["export", "--model_path", str(folder), "--onnx_path", str(tmp_path / "x"), *flags])
    assert "exported: " in capsys.readouterr().out
    names = {file.name for file in (tmp_path / "x").iterdir()}
    assert names == {"config.json", STUDENT_ONNX, STUDENT_TOKENIZER}
    main(args=["predict", *SENTENCES[:20], "--model_path", str(tmp_path / "x")])
    found = capsys.readouterr().out
    if not flags:
        assert found == expected
    assert [line.split()[0] for line in found.splitlines()] == [
        line.split()[0] for line in expected.splitlines()
    ]


def test_export_into_the_student_s_own_folder(folder, capsys):
    main(args=["export", "--model_path", str(folder)])
    first = (folder / STUDENT_ONNX).read_bytes()
    main(args=["export", "--model_path", str(folder)])
    assert (folder / STUDENT_ONNX).read_bytes() == first
    exported = OnnxClassifier(folder)
    model, tokenizer = read_student(folder)
    found = exported.logits(SENTENCES)
    for sentence, row in zip(SENTENCES, found, strict=True):
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


def test_predict_needs_no_torch(folder, run_without):
    main(args=["export", "--model_path", str(folder)])
    result = run_without(
        TRAIN_EXTRA, "predict", *SENTENCES[:3], "--model_path", str(folder), "--json"
    )
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["sentence"] for line in lines] == SENTENCES[:3]
    expected = OnnxClassifier(folder).predict_proba(SENTENCES[:3])
    for line, row in zip(lines, expected, strict=True):
        assert list(line["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-4)


@pytest.mark.parametrize("with_weights", [True, False])
def test_evaluate_needs_no_torch(folder, run_without, capsys, with_weights):
    flags = ("evaluate", "--model_path", str(folder), "--data", "minicola", "--json")
    main(args=["export", "--model_path", str(folder)])
    capsys.readouterr()
    main(args=list(flags))
    expected = json.loads(capsys.readouterr().out)
    if not with_weights:
        (folder / STUDENT_WEIGHTS).unlink()
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


def test_what_needs_torch_says_so(folder, run_without):
    result = run_without(TRAIN_EXTRA, "evaluate", "--model_path", str(folder))
    assert (result.returncode, result.stdout) == (1, "")
    message = r"potstill: \w+ is not installed; pip install 'potstill\[train\]' brings it.\n"
    assert re.fullmatch(message, result.stderr)


@pytest.mark.parametrize("file", ["config.json", STUDENT_TOKENIZER, STUDENT_ONNX])
@pytest.mark.parametrize("body", [None, b"", b"damaged"])
def test_damaged(folder, file, body):
    main(args=["export", "--model_path", str(folder)])
    (folder / file).unlink()
    if body is not None:
        (folder / file).write_bytes(body)
    with pytest.raises(UserError, match=r"the exported student in .* can't be read"):
        OnnxClassifier(folder)


def test_labels_that_do_not_fit(folder):
    main(args=["export", "--model_path", str(folder)])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"labels": ["a", "b", "c"]}))
    with pytest.raises(UserError, match="3 labels"):
        OnnxClassifier(folder)


def test_nothing_to_export(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for args in ([], ["--model_path", str(tmp_path)]):
        with pytest.raises(SystemExit) as stop:
            main(args=["export", *args])
        assert stop.value.code == 1
        assert "train one, or name it by --model_path" in capsys.readouterr().err

"""The exported student against torch; predicting where there is no torch."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from potstill.cli import main
from potstill.data.corpus import load_corpus
from potstill.errors import UserError
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER
from potstill.inference.predictor import load_predictor
from potstill.student.io import read_student, save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.onnx import write_onnx
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


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("int8", [False, True])
def test_onnx_computes_what_torch_does(tmp_path, cell, layers, bidirectional, int8):
    """Sentences of unlike length in one batch, padded."""
    torch.manual_seed(1)
    config = StudentConfig(50, 3, cell, 8, 16, layers, bidirectional)
    model = DistilRNN(config).eval()
    write_onnx(model, tmp_path / "m.onnx", int8)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    ids, lengths = torch.randint(1, 50, (5, 9)), torch.tensor([9, 1, 4, 9, 2])
    inputs = {"input_ids": ids.numpy(), "lengths": lengths.int().numpy()}
    found = session.run(["logits"], inputs)[0]
    with torch.no_grad():
        expected = model(ids, lengths).numpy()
    error = np.abs(found - expected).max()
    assert error < (0.02 if int8 else 1e-5)
    assert error > 1e-4 or not int8


def test_int8_rounds_each_row_to_its_own_scale(tmp_path):
    """By the formula: at most half a step of 1/127 of the row's largest number."""
    model = DistilRNN(StudentConfig(40, 2, embedding_size=8, hidden_size=8)).eval()
    with torch.no_grad():
        model.embedding.weight[3] *= 100
        model.embedding.weight[4] = 0
    rounded = model.embedding.weight.detach().clone()
    step = rounded.abs().amax(1, keepdim=True) / 127
    rounded = torch.where(step > 0, (rounded / step).round() * step, 0.0)
    write_onnx(model, tmp_path / "m.onnx", int8=True)
    stored = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer
    }
    found = stored["embedding_int8"] * stored["embedding_scale"][:, None]
    np.testing.assert_allclose(found, rounded.numpy(), rtol=1e-5, atol=1e-6)


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
    predictor = load_predictor(folder)
    model, tokenizer = read_student(folder)
    found = predictor.logits(SENTENCES)
    for sentence, row in zip(SENTENCES, found, strict=True):
        tokens = torch.tensor(encode(tokenizer, [sentence], 16))
        with torch.no_grad():
            alone = model(tokens, torch.tensor([tokens.shape[1]]))[0].numpy()
        np.testing.assert_allclose(row, alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(SENTENCES).sum(1), 1)


def test_predict_needs_no_torch(folder, run_without):
    """With torch and all the rest of the training side out of reach."""
    main(args=["export", "--model_path", str(folder)])
    heavy = ("torch", "transformers", "safetensors", "accelerate", "matplotlib", "onnx", "sklearn")
    done = run_without(heavy, "predict", *SENTENCES[:3], "--model_path", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["sentence"] for line in lines] == SENTENCES[:3]
    expected = load_predictor(folder).probabilities(SENTENCES[:3])
    for line, row in zip(lines, expected, strict=True):
        assert list(line["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-4)
    # What does need it says so.
    done = run_without(heavy, "evaluate", "--model_path", str(folder))
    assert done.returncode == 1
    assert "pip install 'potstill[train]' brings it" in done.stderr


@pytest.mark.parametrize("file", ["config.json", STUDENT_TOKENIZER, STUDENT_ONNX])
@pytest.mark.parametrize("body", [None, b"", b"damaged"])
def test_damaged(folder, file, body):
    main(args=["export", "--model_path", str(folder)])
    (folder / file).unlink()
    if body is not None:
        (folder / file).write_bytes(body)
    with pytest.raises(UserError, match=r"the exported student in .* can't be read"):
        load_predictor(folder)


def test_labels_that_do_not_fit(folder):
    main(args=["export", "--model_path", str(folder)])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"labels": ["a", "b", "c"]}))
    with pytest.raises(UserError, match="3 labels"):
        load_predictor(folder)


def test_nothing_to_export(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for args in ([], ["--model_path", str(tmp_path)]):
        with pytest.raises(SystemExit) as stop:
            main(args=["export", *args])
        assert stop.value.code == 1
        assert "train one, or name it by --model_path" in capsys.readouterr().err

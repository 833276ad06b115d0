"""The exported graph against torch."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.onnx import write_onnx
from potstill.student.onnx_file import matrix


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("int8", [False, True])
def test_onnx_equals_torch(tmp_path, cell, layers, bidirectional, int8):
    """Sentences of unlike length in one batch, padded."""
    torch.manual_seed(1)
    config = StudentConfig(cell, 16, 8, layers, bidirectional, vocab_size=50, classes=3)
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
    assert [output.name for output in session.get_outputs()] == ["logits"]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("int8", [False, True])
def test_word_logits_equal_torch(tmp_path, cell, bidirectional, int8):
    torch.manual_seed(1)
    config = StudentConfig(cell, 16, 8, 2, bidirectional, vocab_size=50, classes=3, word_head=True)
    model = DistilRNN(config).eval()
    write_onnx(model, tmp_path / "m.onnx", int8)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    ids, lengths = torch.randint(1, 50, (4, 7)), torch.tensor([7, 1, 4, 7])
    inputs = {"input_ids": ids.numpy(), "lengths": lengths.int().numpy()}
    logits, after = session.run(["logits", "word_logits"], inputs)
    with torch.no_grad():
        expected, expected_after = model.word_logits(ids, lengths)
    close = 0.03 if int8 else 1e-5
    np.testing.assert_allclose(logits, expected.numpy(), atol=close)
    for row, length in enumerate(lengths.tolist()):
        np.testing.assert_allclose(
            after[row, :length], expected_after[row, :length].numpy(), atol=close
        )


def test_int8_rounds_each_row_to_its_own_scale(tmp_path):
    """By the formula: at most half a step of 1/127 of the row's largest number."""
    model = DistilRNN(
        StudentConfig(embedding_size=8, hidden_size=8, vocab_size=40, classes=2)
    ).eval()
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


def test_damaged_scales_give_no_warning():
    tensors = {"x_int8": np.full((2, 3), 100, np.int8), "x_shape": np.array([3, 2])}
    tensors["x_scale"] = np.array([np.finfo(np.float32).max, 0.5], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = matrix(tensors, "x")
    np.testing.assert_array_equal(rows.ravel(), np.float32([np.inf] * 3 + [50.0] * 3))

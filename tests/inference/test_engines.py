"""What runs an exported student: 8-bit kernels against onnxruntime, and which of them serves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import potstill
from potstill.errors import UserError
from potstill.files import STUDENT_ONNX, read_json, write_json
from potstill.inference import engines
from potstill.inference.engines import OnnxruntimeEngine, load_engine
from potstill.inference.onnx import OnnxClassifier
from potstill.metrics import score
from potstill.ops import int8_library
from potstill.pretrained import COLA
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.onnx import write_onnx
from potstill.student.onnx_file import read_onnx

BUNDLED = COLA / STUDENT_ONNX
compiled = pytest.mark.skipif(
    int8_library.load_library() is None, reason="this CPU or machine has no kernels"
)


def small_student(folder: Path, int8: bool = True, **network: Any) -> Path:
    torch.manual_seed(1)
    config = StudentConfig(embedding_size=12, hidden_size=16, vocab_size=50, classes=3, **network)
    write_onnx(DistilRNN(config).eval(), folder / STUDENT_ONNX, int8)
    return folder / STUDENT_ONNX


TOKENS = [[4, 2, 9], [1], [7] * 30, [3, 3, 8, 49]]


@compiled
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("word_head", [True, False])
def test_kernels_equal_onnxruntime(
    tmp_path: Path, layers: int, bidirectional: bool, word_head: bool
) -> None:
    file = small_student(tmp_path, layers=layers, bidirectional=bidirectional, word_head=word_head)
    engine, reference = load_engine(file), OnnxruntimeEngine(file)
    assert engine.name == "int8 kernels"
    assert (engine.n_labels, engine.judges_words) == (3, word_head)
    assert reference.judges_words == word_head
    np.testing.assert_allclose(engine.run(TOKENS), reference.run(TOKENS), atol=5e-3)
    assert engine.run([]).shape == reference.run([]).shape == (0, 3)
    if not word_head:
        return
    (whole, words), (expected, expected_words) = (
        engine.run_words(TOKENS),
        reference.run_words(TOKENS),
    )
    np.testing.assert_allclose(whole, expected, atol=5e-3)
    assert [len(w) for w in words] == [len(t) for t in TOKENS] == [len(w) for w in expected_words]
    for one, other in zip(words, expected_words, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)


@compiled
def test_the_bundled_student_keeps_its_quality_in_8_bits() -> None:
    """Within 0.005 of the MCC of fp32 arithmetic, or a label where that is more; at most 1 % of
    labels flipped."""
    classifier = potstill.load()
    assert classifier.engine.name == "int8 kernels"  # type: ignore[attr-defined]
    reference = OnnxClassifier(COLA)
    reference.engine = OnnxruntimeEngine(BUNDLED)
    flipped = sentences = 0
    for name, split in potstill.load_corpus("minicola").splits.items():
        ours, theirs = classifier.logits(split.sentences), reference.logits(split.sentences)
        assert np.abs(ours - theirs).max() < 0.15
        flipped += int((ours.argmax(1) != theirs.argmax(1)).sum())
        sentences += len(ours)
        if name != "train":
            gap = score(ours, split.labels)["mcc"] - score(theirs, split.labels)["mcc"]
            assert abs(gap) < 0.005 + 4 / len(ours)
    assert sentences == 4000 and flipped <= 0.01 * sentences


@compiled
@pytest.mark.cola
@pytest.mark.skipif(
    "POTSTILL_TEST_COLA" not in os.environ,
    reason="POTSTILL_TEST_COLA does not name the folder of CoLA's files",
)
@pytest.mark.slow
def test_the_bundled_student_keeps_its_quality_on_cola() -> None:
    classifier, reference = OnnxClassifier(COLA), OnnxClassifier(COLA)
    reference.engine = OnnxruntimeEngine(BUNDLED)
    corpus = potstill.load_corpus(os.environ["POTSTILL_TEST_COLA"])
    flipped = sentences = 0
    for name, split in corpus.splits.items():
        ours, theirs = classifier.logits(split.sentences), reference.logits(split.sentences)
        flipped += int((ours.argmax(1) != theirs.argmax(1)).sum())
        sentences += len(ours)
        if name != "train":
            gap = score(ours, split.labels)["mcc"] - score(theirs, split.labels)["mcc"]
            assert abs(gap) <= 0.005 + 4 / len(ours)  # a label, where that is more
    assert flipped <= 0.01 * sentences


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_other_cells_and_fp32_are_run_by_onnxruntime(tmp_path: Path, cell: str) -> None:
    assert load_engine(small_student(tmp_path, cell=cell)).name == "onnxruntime"
    assert load_engine(small_student(tmp_path, int8=False)).name == "onnxruntime"


def test_without_kernels_onnxruntime_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "load_library", lambda: None)
    classifier = OnnxClassifier(COLA)
    assert classifier.engine.name == "onnxruntime"
    assert classifier.predict("The books on the table are old.") == "acceptable"


def test_the_reader_reads_what_onnx_reads() -> None:
    graph, expected = read_onnx(BUNDLED.read_bytes()), onnx.load(BUNDLED)
    assert graph.producer == expected.producer_name == "potstill"
    assert [(n.op_type, list(n.inputs), list(n.outputs)) for n in graph.nodes] == [
        (n.op_type, list(n.input), list(n.output)) for n in expected.graph.node
    ]
    arrays = {t.name: numpy_helper.to_array(t) for t in expected.graph.initializer}
    assert arrays.keys() == graph.tensors.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(graph.tensors[name], array)
    for node, other in zip(graph.nodes, expected.graph.node, strict=True):
        ints = {a.name: a.i for a in other.attribute if a.type == onnx.AttributeProto.INT}
        assert node.ints == ints


@pytest.mark.parametrize("cut", [1, 100, 5000, 200_000, 2_800_000])
def test_the_reader_refuses_a_file_that_is_cut_off(cut: int) -> None:
    with pytest.raises(ValueError, match=r"damaged|cut off"):
        read_onnx(BUNDLED.read_bytes()[:-cut])


def changed(model: onnx.ModelProto, change: str) -> onnx.ModelProto:
    """A student's file as another program might have made it."""
    if change == "producer":
        model.producer_name = "somebody"
    elif change == "gates":
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "linear_before_reset":
                    attribute.i = 0
    elif change == "opset":
        model.opset_import[0].version = 16
    elif change == "newer":
        model.opset_import[0].version = 99
    elif change == "shape":
        tensor = next(t for t in model.graph.initializer if t.name == "R0_int8")
        array = numpy_helper.to_array(tensor)[:, :-1]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    elif change == "int64 lengths":
        model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    elif change == "another graph":
        del model.graph.input[1]
        del model.graph.node[:], model.graph.output[:]
        node = onnx.helper.make_node("Identity", ["input_ids"], ["y"])
        model.graph.node.append(node)
        model.graph.output.append(
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["B", "L"])
        )
    return model


@pytest.mark.parametrize(
    "change",
    ["producer", "gates", "opset", "newer", "shape", "int64 lengths", "another graph"],
)
@pytest.mark.parametrize("kernels", [True, False])
def test_files_of_other_programs_are_answered_right_or_refused(
    tmp_path: Path,
    change: str,
    kernels: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not kernels:
        monkeypatch.setattr(engines, "load_library", lambda: None)
    folder = tmp_path / "x"
    shutil.copytree(COLA, folder)
    model = changed(onnx.load(BUNDLED), change)
    (folder / STUDENT_ONNX).write_bytes(model.SerializeToString())
    text = "The books on the table are old."
    expected = OnnxClassifier(COLA).logits(text)
    try:
        logits = OnnxClassifier(folder).logits(text)
    except UserError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
        assert change in ("newer", "shape", "int64 lengths", "another graph")
    else:
        assert change not in ("shape", "another graph")
        assert (np.abs(logits - expected).max() < 0.1) == (change != "gates")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("max_length", [0, -3])
def test_a_length_of_0_is_refused(tmp_path: Path, max_length: int) -> None:
    folder = tmp_path / "x"
    shutil.copytree(COLA, folder)
    write_json(
        folder / "config.json", read_json(folder / "config.json") | {"max_length": max_length}
    )
    with pytest.raises(UserError, match=f"max_length {max_length} is not a whole number from 1"):
        OnnxClassifier(folder)


def test_100000_characters_without_a_space() -> None:
    """Neither time nor memory grow with the square: ten times the text, not a hundred the time."""
    classifier = potstill.load()
    for text in ("ab" * 50_000, "漢字" * 50_000, "\u200b" * 100_000):
        assert classifier.predict_proba(text).sum() == pytest.approx(1)
        assert classifier.truncated(text).all()


def test_padding_of_any_value_and_any_batch(tmp_path: Path) -> None:
    """The file itself in onnxruntime: what is in the padding is not read."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(small_student(tmp_path)))
    lengths = np.array([3, 1], np.int32)
    logits = []
    for padding in (0, 17, 49):
        input_ids = np.full((2, 5), padding, np.int64)
        input_ids[0, :3], input_ids[1, :1] = TOKENS[0], TOKENS[1]
        logits.append(session.run(["logits"], {"input_ids": input_ids, "lengths": lengths})[0])
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])


SCRIPT = """
import os, sys
import potstill
classifier = potstill.load()
classifier.predict(["One.", "The books on the table are old."] * 300)
print(classifier.engine.name, "onnxruntime" in sys.modules, os.environ.get("ORT_DISABLE_TELEMETRY"))
"""


def run_script(prefix: list[str] | None = None, **environment: str) -> str:
    result = subprocess.run(
        [*(prefix or []), sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | environment,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


@compiled
def test_onnxruntime_is_not_loaded_where_the_kernels_serve() -> None:
    assert run_script() == "int8 kernels False None"


def test_onnxruntime_sends_no_telemetry(tmp_path: Path) -> None:
    environment = {"CC": "false", "POTSTILL_CACHE": str(tmp_path)}
    assert run_script(**environment) == "onnxruntime True 1"


@pytest.mark.skipif(shutil.which("taskset") is None, reason="there is no taskset")
@pytest.mark.parametrize("kernels", [True, False])
def test_one_cpu_of_many_is_enough_and_quiet(tmp_path: Path, kernels: bool) -> None:
    environment = {} if kernels else {"CC": "false", "POTSTILL_CACHE": str(tmp_path)}
    cpu = str(min(os.sched_getaffinity(0)))
    run_script(["taskset", "-c", cpu], **environment)

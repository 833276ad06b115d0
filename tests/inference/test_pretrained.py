"""The student that comes with the package."""

import json

import numpy as np
import pytest

from potstill import metrics
from potstill.cli import main
from potstill.data.corpus import load_corpus
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER
from potstill.inference.engines import OnnxruntimeEngine
from potstill.inference.onnx import OnnxClassifier
from potstill.pretrained import COLA

HEAVY = ("torch", "transformers", "safetensors", "onnx", "matplotlib")


def test_predict_takes_it_where_nothing_is_trained_and_there_is_no_torch(run_without, tmp_path):
    sentences = ["The books is on the table.", "The books are on the table."]
    done = run_without(HEAVY, "predict", *sentences, "--json")
    assert done.returncode == 0, done.stderr
    assert "nothing is trained in runs/ yet; this one came with potstill" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["sentence"] for line in lines] == sentences
    assert {line["label"] for line in lines} <= {"acceptable", "unacceptable"}
    assert not list((tmp_path / "empty").iterdir())


def test_its_files_are_small_and_name_no_folder():
    assert {file.name for file in COLA.iterdir()} == {
        "README.md",
        "config.json",
        STUDENT_ONNX,
        STUDENT_TOKENIZER,
    }
    assert sum(file.stat().st_size for file in COLA.iterdir()) <= 3_150_000
    config = json.loads((COLA / "config.json").read_text())
    assert not {"teacher", "data", "settings", "machine"} & config.keys()
    assert config["parameters"]["total"] <= 3_000_000


@pytest.mark.cola
@pytest.mark.parametrize("split", ["dev", "ood"])
def test_its_card_has_its_scores(split, cola_folder):
    labelled = load_corpus(str(cola_folder)).splits[split]
    classifier = OnnxClassifier(COLA)
    classifier.engine = OnnxruntimeEngine(COLA / STUDENT_ONNX)  # the same on every CPU
    score = metrics.score(classifier.logits(labelled.sentences), labelled.labels)
    card = (COLA / "README.md").read_text()
    title = {"dev": "dev", "ood": "out-of-domain dev"}[split]
    assert f"| {title} | {100 * score['accuracy']:.1f} % | {score['mcc']:.3f} |" in card


def test_its_probabilities_sum_to_one_and_differ():
    sentences = load_corpus("minicola").splits["dev"].sentences[:64]
    probabilities = OnnxClassifier(COLA).predict_proba(sentences)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert 0.1 < probabilities[:, 0].mean() < 0.9  # it does tell sentences apart
    assert probabilities[:, 0].std() > 0.05


def test_evaluate_takes_it_where_nothing_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(args=["evaluate", "--data", "minicola", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == str(COLA)
    assert report["scores"]["dev"]["sentences"] == 500


def test_it_finds_the_words_that_are_wrong():
    student = OnnxClassifier(COLA)
    assert student.config["student"]["word_head"] is True
    for text, word in (
        ("The books is on the table.", "is"),
        ("She has gone to school yesterday the.", "the."),
    ):
        explanation = student.explain(text)
        assert explanation.label == "unacceptable"
        assert explanation.decisive is not None
        assert explanation.words[explanation.decisive] == word

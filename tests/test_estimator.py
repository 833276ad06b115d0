"""DistilRNNClassifier as scikit-learn uses it."""

import inspect
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill import (
    Corpus,
    DistilRNNClassifier,
    TrainSettings,
    UsageError,
    UserError,
    finetune,
    load,
)
from potstill.cli import main
from potstill.data.splits import Split
from potstill.settings import DistilSettings, PretrainSettings, StudentSettings
from tests.toy_texts import AGREES, LABELS, QUICK, SMALL, TEXTS


@pytest.fixture(scope="module")
def fitted() -> DistilRNNClassifier:
    return DistilRNNClassifier(**SMALL).fit(TEXTS, LABELS)


class TestFit:
    def test_it_starts_from_a_saved_student(
        self, fitted: DistilRNNClassifier, tmp_path: Path
    ) -> None:
        fitted.student_.save_pretrained(tmp_path / "first")
        settings: dict[str, Any] = SMALL | {"init": str(tmp_path / "first"), "seed": 3}
        second = DistilRNNClassifier(**settings).fit(TEXTS, LABELS)
        tokenizers = [each.student_.tokenizer.to_str() for each in (fitted, second)]
        assert tokenizers[0] == tokenizers[1]
        assert second.student_.config["init"]["path"] == str(tmp_path / "first")

    @pytest.mark.parametrize(
        "labels",
        [
            LABELS,
            LABELS.tolist(),
            LABELS.astype(object),
            AGREES,
            AGREES.tolist(),
            np.where(AGREES, 10, 9),
            np.arange(48) % 3,
            np.where(AGREES, 1.0, 0.0),
        ],
        ids=["str", "list", "object", "bool", "list of bool", "int", "three", "float"],
    )
    def test_labels_of_any_kind_are_kept_as_they_came(self, labels: Any) -> None:
        classifier = DistilRNNClassifier(**QUICK, seed=1).fit(np.array(TEXTS), labels)
        expected = np.unique(labels)
        assert classifier.classes_.dtype == expected.dtype
        np.testing.assert_array_equal(classifier.classes_, expected)
        predictions = classifier.predict(TEXTS)
        assert predictions.dtype == expected.dtype
        assert set(predictions) <= set(expected)
        probabilities = classifier.predict_proba(TEXTS)
        assert probabilities.shape == (48, len(expected))
        np.testing.assert_allclose(probabilities.sum(1), 1)
        np.testing.assert_array_equal(expected[probabilities.argmax(1)], predictions)
        assert classifier.score(TEXTS, labels) == np.mean(predictions == np.asarray(labels))

    def test_columns_are_in_the_order_of_the_classes(self) -> None:
        """Numbers are sorted as numbers, and their names as text would be."""
        labels = np.where([" are " in text for text in TEXTS], 10, 9)
        settings = SMALL | {"hidden_size": 16, "embedding_size": 16, "epochs": 30, "lr": 0.01}
        classifier = DistilRNNClassifier(**settings).fit(TEXTS, labels)
        assert classifier.score(TEXTS, labels) == 1

    def test_the_seed_determines_the_weights(self, fitted: DistilRNNClassifier) -> None:
        expected = fitted.predict_proba(TEXTS)
        again = DistilRNNClassifier(**SMALL).fit(TEXTS, LABELS)
        np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)
        again.fit(TEXTS, LABELS)  # fitted twice
        np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)
        other = DistilRNNClassifier(**SMALL, seed=1).fit(TEXTS, LABELS)
        assert abs(other.predict_proba(TEXTS) - expected).max() > 1e-4

    def test_it_is_silent_and_leaves_nothing(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        # Commands that were run in this process have left the handler that prints.
        monkeypatch.setattr(logging.getLogger("potstill"), "handlers", [])
        torch.manual_seed(3)
        state = torch.get_rng_state()
        DistilRNNClassifier(**SMALL).fit(TEXTS, LABELS)
        assert torch.equal(torch.get_rng_state(), state)
        assert capfd.readouterr() == ("", "")
        assert list(tmp_path.iterdir()) == [temporary]
        assert not list(temporary.iterdir())

    def test_a_student_can_be_saved_and_exported(
        self, fitted: DistilRNNClassifier, tmp_path: Path
    ) -> None:
        fitted.student_.save_pretrained(tmp_path / "tiny")
        np.testing.assert_array_equal(load(tmp_path / "tiny").predict(TEXTS), fitted.predict(TEXTS))
        exported = fitted.student_.export_onnx(tmp_path / "onnx")
        np.testing.assert_array_equal(exported.predict(TEXTS), fitted.predict(TEXTS))

    def test_a_saved_student_says_that_its_data_is_gone(
        self, fitted: DistilRNNClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fitted.student_.save_pretrained(tmp_path / "tiny")
        with pytest.raises(SystemExit):
            main(args=["evaluate", "--model_path", str(tmp_path / "tiny")])
        message = capsys.readouterr().err
        assert "data in memory, which" in message
        assert "tiny was trained on, is not here; name" in message

    @pytest.mark.parametrize(
        ("X", "y", "error", "message"),
        [
            (TEXTS, ["good"] * 48, UserError, "y has one class only, 'good'"),
            (TEXTS, LABELS[:-1], ValueError, "inconsistent numbers of samples"),
            (TEXTS, np.linspace(0, 1, 48), ValueError, "Unknown label type"),
            (TEXTS, np.stack([AGREES, AGREES], 1), ValueError, "1d array"),
            (TEXTS, None, ValueError, "y"),
            ([*TEXTS[:-1], ""], LABELS, UserError, "text 48 of 48 is empty"),
            (np.ones((48, 2)), LABELS, UserError, "not ndarray; of a table give the column"),
            ("One.", ["good"], UserError, "not one string"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, X: Any, y: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            DistilRNNClassifier(**SMALL).fit(X, y)

    @pytest.mark.parametrize(
        ("parameter", "message"),
        [
            ({"epochs": 0}, "`epochs` 0 is out of range"),
            ({"hidden_size": 0}, "`hidden_size` 0 is out of range"),
            ({"cell": "transformer"}, "`cell` transformer is out of range"),
            ({"seed": -1}, "`seed` -1 is out of range"),
            ({"transfer_set": "runs/transfer-1"}, "`transfer_set` .* `teacher`"),
        ],
    )
    def test_parameters_are_checked_by_fit(self, parameter: dict[str, Any], message: str) -> None:
        classifier = DistilRNNClassifier(**SMALL | parameter)
        with pytest.raises(UsageError, match=message):
            classifier.fit(TEXTS, LABELS)

    def test_defaults_are_those_of_the_commands(self) -> None:
        groups = (StudentSettings(), PretrainSettings(), DistilSettings(), TrainSettings())
        for name, value in DistilRNNClassifier().get_params().items():
            for group in groups:
                if hasattr(group, name) and name != "batch_size":
                    assert value == getattr(group, name), name


class TestTeacher:
    def test_a_base_model_is_fine_tuned_first(self, tiny_gpt2: Path) -> None:
        classifier = DistilRNNClassifier(**SMALL, teacher=str(tiny_gpt2)).fit(TEXTS, LABELS)
        assert classifier.classes_.tolist() == ["bad", "good"]
        assert classifier.student_.config["teacher"]["title"] == "tiny-gpt2 + LoRA"
        alone = DistilRNNClassifier(**SMALL).fit(TEXTS, LABELS)
        assert abs(classifier.predict_proba(TEXTS) - alone.predict_proba(TEXTS)).max() > 1e-4

    def test_an_adapter_may_have_its_classes_in_another_order(
        self, tiny_gpt2: Path, tmp_path: Path
    ) -> None:
        split = Split(TEXTS, [int(label == "bad") for label in LABELS])
        corpus = Corpus("toy", ("good", "bad"), {"train": split}, "", "")
        train = TrainSettings(epochs=1, lr=6e-4)
        finetune(str(tiny_gpt2), corpus, seed=1, train=train, output=tmp_path / "teacher")
        settings = SMALL | {"teacher": tmp_path / "teacher", "epochs": 30, "lr": 0.01, "alpha": 0.0}
        settings |= {"word_loss_weight": 0.0, "hidden_size": 16, "embedding_size": 16}
        settings |= {"holdout": 0.0}
        classifier = DistilRNNClassifier(**settings).fit(TEXTS, LABELS)
        assert classifier.classes_.tolist() == ["bad", "good"]
        assert classifier.student_.classes_.tolist() == ["good", "bad"]
        np.testing.assert_array_equal(classifier.predict(TEXTS), classifier.student_.predict(TEXTS))
        assert classifier.score(TEXTS, LABELS) > 0.9
        with pytest.raises(UserError, match="knows good, bad, but y has False, True"):
            DistilRNNClassifier(**settings).fit(TEXTS, AGREES)

    def test_a_teacher_that_is_no_model_is_named(self) -> None:
        with pytest.raises(UserError, match=r"`teacher` no/where .* base model"):
            DistilRNNClassifier(**SMALL, teacher="no/where").fit(TEXTS, LABELS)


def test_every_parameter_is_documented() -> None:
    documented = inspect.getdoc(DistilRNNClassifier) or ""
    for name in DistilRNNClassifier().get_params():
        assert f"    {name}: " in documented

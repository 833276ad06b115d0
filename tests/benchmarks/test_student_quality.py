"""The rows of benchmarks/student_quality.py and the arithmetic behind them."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import student_quality
import student_recipes
from sklearn.metrics import matthews_corrcoef

from potstill.cli import main
from potstill.data.corpus import load_corpus
from potstill.inference.classifier import Classifier
from potstill.recipes import _comparison, rnn
from potstill.settings import PretrainSettings, StudentSettings
from potstill.transfer.dataset import check_top_k, read_transfer_set
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import (
    DESCRIPTION,
    SHARD_SIZE,
    VOCABULARY,
    list_shards,
    read_vocabulary,
    write_shard,
)
from potstill.transfer.top_k import EMPTY

CLASSES = 2


def answers(seeds: int, right: float, labels: np.ndarray, seed: int) -> np.ndarray:
    """(seeds, N) answers of which a share `right` is the label."""
    correct = np.random.default_rng(seed).random((seeds, len(labels))) < right
    return np.where(correct, labels, 1 - labels)


def test_the_bootstrap_is_paired(monkeypatch):
    labels = np.random.default_rng(0).integers(0, CLASSES, 60)
    better, worse = answers(3, 0.9, labels, 1), answers(2, 0.6, labels, 2)
    assert student_quality.bootstrap(better, better, labels) == [0, 0]
    low, high = student_quality.bootstrap(better, worse, labels)
    assert 0 < low < high
    assert student_quality.bootstrap(worse, better, labels) == pytest.approx([-high, -low])

    monkeypatch.setattr(student_quality, "RESAMPLES", 40)
    drawn = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), 40)

    def mean(rows: np.ndarray, weights: np.ndarray) -> float:
        return np.mean([matthews_corrcoef(labels, row, sample_weight=weights) for row in rows])

    differences = [mean(better, weights) - mean(worse, weights) for weights in drawn]
    expected = np.percentile(differences, [2.5, 97.5])
    assert student_quality.bootstrap(better, worse, labels) == pytest.approx(list(expected))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A set of four shards of sampled sentences and six of edited ones, two sentences in each."""
    folder = tmp_path / "whole"
    folder.mkdir()
    numbers = {"own": 0, "sampled": 4, "edited": 6}
    description = {
        "teacher": {"path": "runs/LoRA-1", "sha256": "a" * 64},
        "labels": ["bad", "good"],
        "sentences": {kind: shards * SHARD_SIZE for kind, shards in numbers.items()},
    }
    (folder / DESCRIPTION).write_text(json.dumps(description))
    for shard in list_shards(folder, description):
        sentences = [f"{shard.kind} {shard.number} {i}" for i in range(2)]
        origin = Origin(shard.kind)
        rows = [LabelledSentence(s, origin, "", [0.0, 1.0], []) for s in sentences]
        targets = [EMPTY] * 2 if shard.kind is SourceKind.SAMPLED else None
        write_shard(shard.path, rows, CLASSES, targets)
    (folder / VOCABULARY).write_text('["a"]')
    return folder


def recipes(whole: Path, folder: Path, only: list[str]) -> list[student_recipes.Recipe]:
    return student_recipes.recipes(
        teacher=Path("runs/LoRA-1"),
        whole=whole,
        folder=folder,
        epochs=3,
        pretrain_epochs=5,
        n_labelled=10,
        only=only,
    )


def test_every_row_takes_as_many_steps_and_its_own_sentences(whole, tmp_path):
    rows = recipes(whole, tmp_path, [])
    sentences = {recipe.name: recipe.sentences for recipe in rows}
    assert sentences == {
        "baseline without a teacher": 0,
        "CoLA only": 0,
        "0.25 of the set": 2 + 4,
        "0.5 of the set": 4 + 6,
        "sampled": 8,
        "edited": 12,
        "random weights, no language model": 20,
        "random weights, hard LM targets": 20,
        "random weights, language model": 20,
        "sentence-level only": 20,
        "the whole set": 20,
    }
    for recipe in rows:
        epochs = int(recipe.command[recipe.command.index("--epochs") + 1])
        if recipe.name != "CoLA only":
            assert epochs == round(3 * 30 / (10 + recipe.sentences))
        random = recipe.name.startswith("random")
        assert random == ("none" in recipe.command) == ("--pretrain_epochs" in recipe.command)
        if random:  # the last of a flag given twice counts
            place = len(recipe.command) - 1 - recipe.command[::-1].index("--pretrain_epochs")
            expected = "0" if "no language model" in recipe.name else "5"
            assert recipe.command[place + 1] == expected
        if recipe.sentences:
            part = Path(recipe.command[recipe.command.index("--transfer_set") + 1])
            found = read_transfer_set(part)
            check_top_k(found)
            assert read_vocabulary(part) == ["a"]
            kinds = set(found.select(without=[]).kinds())
            assert kinds == ({recipe.name} if recipe.name in kinds else {"sampled", "edited"})


def test_only_the_rows_asked_for_get_their_sentences(whole, tmp_path):
    def names(*only: str) -> list[str]:
        return [recipe.name for recipe in recipes(whole, tmp_path, list(only))]

    assert names("edited", "the whole set") == ["edited", "the whole set"]
    assert [part.name for part in (tmp_path / "sets").iterdir()] == ["edited"]
    with pytest.raises(SystemExit, match="no row 'edits'"):
        names("edits", "sampled")
    assert [part.name for part in (tmp_path / "sets").iterdir()] == ["edited"]


def test_a_rows_own_flags_win_over_those_of_all_rows(tmp_path, monkeypatch):
    """Of a flag given twice the command line takes the last."""
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **rest: commands.append(command))
    recipe = student_recipes.Recipe("plain", ["rnn", "--pretrain_epochs", "0"])
    flags = ["--pretrain_epochs", "3", "--layers", "1"]
    student_recipes.train(recipe, 1, tmp_path, flags=flags, threads=1)
    given = {}
    monkeypatch.setattr(rnn, "train_baseline", lambda data, **settings: given.update(settings))
    monkeypatch.setattr(_comparison, "report", lambda folder, plot: None)
    main(args=commands[0][3:])
    assert given["pretraining"] == PretrainSettings(pretrain_epochs=0)
    assert given["student"] == StudentSettings(layers=1)


class FixedLogits(Classifier):
    """A model whose `logits`, (N, classes) or (1, classes), do not depend on the N sentences."""

    title, n_parameters = "fixed", 0

    def __init__(self, labels: tuple[str, ...], logits: np.ndarray):
        self.classes_, self.config, self._logits = np.array(labels), {}, logits

    def logits(self, texts):
        return np.broadcast_to(self._logits, (len(texts), CLASSES))


def test_a_row_has_the_scores_without_prevalence_matching():
    minicola = load_corpus("minicola")
    rng = np.random.default_rng(0)

    def knowing(shift: float) -> FixedLogits:
        right = np.eye(CLASSES)[minicola.splits["dev"].labels]
        logits = right + rng.normal(size=right.shape) + np.array([0, shift])
        return FixedLogits(minicola.labels, logits)

    corpus = replace(minicola, splits={"dev": minicola.splits["dev"]})
    recipe = student_recipes.Recipe("both", ["distil"], 7)
    students = {"both": [knowing(-0.4), knowing(-0.2)]}
    biases = {"both": [np.array([0, 3.0]), np.zeros(2)]}
    report = student_quality.summarise(
        corpus, students["both"][0], [recipe], students=students, biases=biases
    )
    row = report["recipes"]["both"]["dev"]
    assert row["mcc"][1] == row["unshifted_mcc"][1]
    sentences, labels = corpus.splits["dev"].sentences, corpus.splits["dev"].labels
    logits = students["both"][0].logits(sentences) - [0, 3]
    for key in ("mcc", "accuracy"):
        expected = student_quality.metrics.score(logits, labels)[key]
        assert row[f"unshifted_{key}"][0] == pytest.approx(expected) != row[key][0]


def test_phenomena_are_means_over_the_seeds():
    minicola = load_corpus("minicola")

    def always(answer: int) -> FixedLogits:
        return FixedLogits(minicola.labels, np.eye(CLASSES)[[answer]])

    found = student_quality.phenomena(always(1), {"one of each": [always(0), always(1)]})
    assert set(found) == {
        source for name in ("dev", "ood") for source in minicola.splits[name].sources
    }
    for row in found.values():
        assert row["one of each"] == pytest.approx(0.5)
        assert max(row["teacher"], 1 - row["teacher"]) == pytest.approx(row["majority"])

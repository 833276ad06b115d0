"""The table at the end of `make`: the student and what it has to be better than."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.corpus import Corpus
from potstill.data.splits import Split
from potstill.inference.classifier import Classifier
from potstill.metrics import evaluation
from potstill.report.predictions import Prediction

MEASURES = ("accuracy", "macro_f1", "mcc", "ece")

logger = logging.getLogger(__name__)


def final_split(corpus: Corpus) -> str:
    """Return the name of the split that the table is about: test, where there is one, else dev."""
    return "test" if "test" in corpus.splits else "dev"


def baseline_rows(corpus: Corpus) -> list[dict[str, Any]]:
    """Return the rows of the majority class and of TF-IDF with logistic regression.

    The latter has words and pairs of words, otherwise scikit-learn's defaults, and learns from all
    of train.
    """
    train, scored = corpus.splits["train"], corpus.splits[final_split(corpus)]
    frequencies = np.bincount(train.labels, minlength=len(corpus.labels)) / len(train)
    with np.errstate(divide="ignore"):
        majority = np.log(np.maximum(np.tile(frequencies, (len(scored), 1)), 1e-12))
    rows = [row("majority class", evaluation(majority, scored.labels))]
    model = tf_idf_with_logistic_regression()
    try:
        model.fit(train.sentences, train.labels)
    except ValueError as error:  # texts without a single word
        logger.warning(f"no TF-IDF + logistic regression to compare with: {error}")
        return rows
    started = time.perf_counter()
    logits = np.log(np.maximum(model.predict_proba(scored.sentences), 1e-12))
    speed = len(scored) / (time.perf_counter() - started)
    size = sum(8 * array.size for array in (model[1].coef_, model[1].intercept_))
    scores = evaluation(logits, scored.labels)
    rows.append(row("TF-IDF + logistic regression", scores, megabytes=size / 1e6, speed=speed))
    return rows


def tf_idf_with_logistic_regression() -> Any:
    """Return a pipeline of scikit-learn that is not fitted yet."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        # scikit-learn's own pattern leaves out words of one letter, and with them all of Japanese.
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"),
        LogisticRegression(max_iter=1000),
    )


def teacher_pays(predictions: Sequence[Prediction], train: Split, labels: Sequence[str]) -> bool:
    """Return whether a teacher has learnt more than TF-IDF with logistic regression would; log how
    often either is right where it has not.

    It has not if, of the held-out sentences that one of them alone is right about, it is right
    about fewer than TF-IDF by more than a standard error (McNemar 1947).

    Args:
        predictions: The teacher's, for held-out sentences.
        train: All training sentences, the held-out ones among them.
        labels: The names of the classes.
    """
    held = {prediction.text for prediction in predictions}
    rest = train.take([i for i, text in enumerate(train.sentences) if text not in held])
    model = tf_idf_with_logistic_regression()
    try:
        model.fit(rest.sentences, rest.labels)
        predicted = model.predict([prediction.text for prediction in predictions])
    except ValueError:  # texts without a single word, or none
        return True
    answers = [labels[i] for i in predicted]
    right = np.array([prediction.predicted == prediction.label for prediction in predictions])
    rival = np.array([answer == p.label for answer, p in zip(answers, predictions, strict=True)])
    ahead, behind = int((right & ~rival).sum()), int((rival & ~right).sum())
    pays = behind - ahead <= math.sqrt(ahead + behind)
    if not pays:
        logger.warning(
            f"the teacher is right about {100 * right.mean():.1f} % of the held-out sentences, "
            f"TF-IDF + logistic regression about {100 * rival.mean():.1f} %"
        )
    return bool(pays)


def model_row(
    name: str, classifier: Classifier, corpus: Corpus, files: Sequence[Path]
) -> dict[str, Any]:
    """Return the row of a saved model.

    Args:
        files: What it takes to run it.
    """
    split = final_split(corpus)
    only = Corpus(
        corpus.name, corpus.labels, {split: corpus.splits[split]}, corpus.path, corpus.sha256
    )
    scores = classifier.evaluate(only)[split]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    speed = _speed(classifier, corpus.splits[split])
    return row(name, scores, megabytes=megabytes, speed=speed)


def row(
    name: str, scores: dict[str, Any], megabytes: float | None = None, speed: float | None = None
) -> dict[str, Any]:
    """Return a row: a model's name, its measures, its size and the sentences that it answers a
    second."""
    measures = {measure: scores[measure] for measure in MEASURES}
    about = {"megabytes": megabytes, "sentences_per_second": speed}
    return {"model": name} | measures | about


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table as lines of text."""
    width = max(len(row["model"]) for row in rows)
    header = ("accuracy", "macro F1", "MCC", "calibration error", "size", "sentences/s")
    lines = [f"{'':<{width}}  " + "  ".join(f"{title:>9}" for title in header)]
    for row in rows:
        size, speed = row["megabytes"], row["sentences_per_second"]
        cells = (
            f"{100 * row['accuracy']:.2f} %",
            f"{row['macro_f1']:.3f}",
            f"{row['mcc']:.3f}",
            f"{100 * row['ece']:.1f} %",
            "-" if size is None else f"{size:,.1f} MB",
            "-" if speed is None else f"{speed:,.0f}",
        )
        aligned = (
            f"{cell:>{max(9, len(title))}}" for cell, title in zip(cells, header, strict=True)
        )
        lines.append(f"{row['model']:<{width}}  " + "  ".join(aligned))
    return lines


def _speed(classifier: Classifier, split: Split, few: int = 256, many: int = 8192) -> float:
    """Return the texts a second, of a few; of many, where that takes no time."""
    texts = split.sentences[:few]
    seconds = _seconds(classifier, texts)
    if seconds < 0.5:
        texts = (texts * (many // len(texts) + 1))[:many]
        seconds = _seconds(classifier, texts)
    return len(texts) / seconds


def _seconds(classifier: Classifier, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    classifier.logits(texts)
    return time.perf_counter() - started

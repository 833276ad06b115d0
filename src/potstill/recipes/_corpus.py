"""The corpus of a saved model: what it was trained on, what it is scored on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.data.corpus import Corpus, load_corpus, load_evaluation
from potstill.errors import UserError
from potstill.inference.classifier import Classifier


def training_corpus(folder: Path, classifier: Classifier) -> Corpus:
    """Return the corpus that the model in `folder` was trained on.

    Raises:
        UserError: The run recorded no data, or it is missing or has changed since.
    """
    if "data" not in classifier.config:
        raise UserError(f"{folder} does not say what it was trained on; name the data with `data`.")
    data, settings = trained_on(classifier), classifier.config["settings"]
    columns = [settings.get(f"{what}_column") for what in ("text", "label", "group")]
    try:
        corpus = load_corpus(data, *columns)
    except UserError as error:
        if Path(data).exists():
            raise
        raise UserError(
            f"{data}, which {folder} was trained on, is not here; name the data with `data`."
        ) from error
    if corpus.sha256 != classifier.config["data"]["sha256"]:
        raise UserError(
            f"{data} has changed since {folder} was trained; name the data with `data`."
        )
    return replace(corpus, reason="what the model was trained on")


def evaluation_corpus(
    folder: Path,
    classifier: Classifier,
    data: Any,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
) -> Corpus:
    """Return what to score the model in `folder` on: `data`, or for "auto" all splits but train of
    the corpus that it was trained on."""
    if not (isinstance(data, str) and data == "auto") or "data" not in classifier.config:
        return load_evaluation(data, tuple(classifier.classes_), text_column, label_column)
    corpus = training_corpus(folder, classifier)
    splits = {name: split for name, split in corpus.splits.items() if name != "train"}
    return replace(corpus, splits=splits)


def trained_on(classifier: Classifier) -> str:
    """Return the data that a model was trained on, as the setting `data` names it."""
    data = classifier.config["data"]
    return "minicola" if data["name"] == "MiniCoLA" else data["path"]

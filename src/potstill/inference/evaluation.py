"""The scores of a model on labelled data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill.data.corpus import Corpus, load_evaluation
from potstill.data.splits import SPLIT_TITLES
from potstill.errors import UserError
from potstill.html import scores_table
from potstill.inference.classifier import Classifier
from potstill.metrics import evaluation
from potstill.progress import Progress, no_progress

SHOWN_TOGETHER = 256  # sentences that are scored between two pictures of a progress bar


class Scores(dict[str, dict[str, Any]]):
    """The scores of each split; a dict that notebooks show as a table."""

    def _repr_html_(self) -> str:
        return scores_table(self)


def evaluate(
    classifier: Classifier,
    data: Any,
    *,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    progress: Progress = no_progress,
) -> Scores:
    """Score a model on labelled data; see `Classifier.evaluate`."""
    labels = tuple(map(str, classifier.classes_))
    if not isinstance(data, Corpus):
        data = load_evaluation(data, labels, text_column, label_column)
    return scores_and_logits(classifier, data, progress=progress)[0]


def scores_and_logits(
    classifier: Classifier, data: Corpus, *, progress: Progress = no_progress
) -> tuple[Scores, dict[str, np.ndarray]]:
    """Return the scores of a model and its (N, classes) logits, both for each scored split.

    Raises:
        UserError: The corpus has a label that the model does not know.
    """
    labels = tuple(map(str, classifier.classes_))
    class_index = {label: i for i, label in enumerate(labels)}
    unknown = [label for label in data.labels if label not in class_index]
    if unknown:
        raise UserError(
            f"{data.path} has the label {unknown[0]!r}, but the model's classes are "
            f"{', '.join(labels)}; score it on data with these labels."
        )
    scored = {name: split for name, split in data.splits.items() if name != "train"} or data.splits
    scores, logits, done = Scores(), {}, 0
    with progress(sum(map(len, scored.values()))) as show:
        for name, split in scored.items():
            parts = []
            for start in range(0, len(split), SHOWN_TOGETHER):
                show(done, f"scoring {SPLIT_TITLES.get(name, name)}")
                part = split.sentences[start : start + SHOWN_TOGETHER]
                parts.append(classifier.logits(part))
                done += len(part)
            logits[name] = np.concatenate(parts)
            scores[name] = evaluation(
                logits[name] / classifier.temperature,
                [class_index[data.labels[label]] for label in split.labels],
                split.sources,
                offsets=classifier.offsets,
                threshold=(classifier.config.get("decision") or {}).get("threshold", 0.0),
            )
    return scores, logits

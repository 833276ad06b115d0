"""What every saved model can do once it is loaded: the protocol `Classifier`."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, overload

import numpy as np

from potstill.errors import UserError
from potstill.inference.explain import Explanation, word_spans

NO_WORD_HEAD = (
    "this student has no layer that judges words, so it can't be explained; distil it again, with "
    "`word_loss_weight` above 0."
)


class Classifier(Protocol):
    """A saved model, loaded.

    Attributes:
        classes_: (classes,) names of the classes, in the order of the columns of `logits`.
        title: Name for tables, such as "GPT-2 + LoRA".
        n_parameters: Number of parameters, tied ones counted once.
        max_length: Maximum number of tokens of a text; the rest of a longer one is not read.
        config: The config.json of the run that trained it; empty where PEFT saved the adapter.
    """

    classes_: np.ndarray
    title: str
    n_parameters: int
    max_length: int
    config: dict[str, Any]

    def logits(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the (N, classes) logits of N texts, fp32; one string counts as one text.

        Raises:
            UserError: A text is empty or not a string.
        """
        ...

    def word_logits(self, texts: str | Iterable[str]) -> list[np.ndarray]:
        """Return the logits of each text after each of its W words, and of the whole text.

        A decoder gives those of the text cut after the word. A student gives its estimate of them,
        from one reading of the whole.

        Args:
            texts: One string, or a list, an array or a column of a table with N strings.

        Returns:
            N arrays of (W + 1, classes), fp32. A word is what is between spaces; those beyond the
            maximum length are left out.

        Raises:
            UserError: A text is empty or not a string, or the model can't judge words.
        """
        ...

    @overload
    def predict(self, texts: str) -> str: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, texts: Iterable[str]) -> np.ndarray: ...

    def predict(self, texts: str | Iterable[str]) -> str | np.ndarray:
        """Return the most probable class of each text.

        Args:
            texts: One string, or a list, an array or a column of a table with N strings.

        Returns:
            One label for one string, else a (N,) array of labels.

        Raises:
            UserError: A text is empty or not a string.
        """
        labels = self.classes_[self.logits(texts).argmax(1)]
        return str(labels[0]) if isinstance(texts, str) else labels

    def predict_proba(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the (N, classes) probabilities of N texts, with columns as in `classes_`.

        Args:
            texts: As in `predict`; one string gives one row.

        Raises:
            UserError: A text is empty or not a string.
        """
        return softmax(self.logits(texts))

    def truncated(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return for each of N texts whether it has more tokens than the model reads, (N,).

        Args:
            texts: As in `predict`.

        Raises:
            UserError: A text is empty or not a string.
        """
        ...

    @overload
    def explain(self, texts: str) -> Explanation: ...  # type: ignore[overload-overlap]

    @overload
    def explain(self, texts: Iterable[str]) -> list[Explanation]: ...

    def explain(self, texts: str | Iterable[str]) -> Explanation | list[Explanation]:
        """Return the probabilities of each text and of its beginnings, word by word.

        Args:
            texts: One string, or a list, an array or a column of a table with N strings.

        Returns:
            One `Explanation` for one string, else a list of N.

        Raises:
            UserError: A text is empty or not a string, or the model is a student that has not
                learnt to judge words.
        """
        checked = check_texts(texts)
        explanations = []
        for text, logits in zip(checked, self.word_logits(checked), strict=True):
            *word_probabilities, whole = softmax(logits)
            explanations.append(
                Explanation(
                    text,
                    tuple(self.classes_.tolist()),
                    whole,
                    word_spans(text)[: len(word_probabilities)],
                    np.array(word_probabilities).reshape(-1, len(whole)),
                )
            )
        return explanations[0] if isinstance(texts, str) else explanations

    def evaluate(
        self,
        data: Any,
        *,
        text_column: str | Sequence[str] | None = None,
        label_column: str | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Score the model on labelled data.

        Args:
            data: A corpus, of which every split but train is scored (train where there is no
                other); a file, a DataFrame or a pair (texts, labels), which is scored whole; a
                folder with dev files; "cola" or "minicola".
            text_column: Column or JSON key of the text in a file; several are joined with " ||| ".
                Default: sentence or text.
            label_column: Column or JSON key of the label in a file. Default: label.

        Returns:
            For each split what results.json has: "sentences", "loss" (mean cross-entropy in nats),
            "accuracy", "mcc", "mcc_95" (its 95 % bootstrap interval), "majority" (the accuracy of
            the most frequent class), "confusion" (counts, rows the truth) and "groups" (accuracy
            by source).

        Raises:
            UserError: The data is missing or damaged, or has a label that is not in `classes_`.
        """
        # Prediction alone needs neither.
        from potstill.data.corpus import Corpus, load_evaluation
        from potstill.metrics import evaluation

        labels = tuple(map(str, self.classes_))
        if not isinstance(data, Corpus):
            data = load_evaluation(data, labels, text_column, label_column)
        class_index = {label: i for i, label in enumerate(labels)}
        unknown = [label for label in data.labels if label not in class_index]
        if unknown:
            raise UserError(
                f"{data.path} has the label {unknown[0]!r}, but the model's classes are "
                f"{', '.join(labels)}; score it on data with these labels."
            )
        scored = {name: split for name, split in data.splits.items() if name != "train"}
        scores = {}
        for name, split in (scored or data.splits).items():
            truth = [class_index[data.labels[label]] for label in split.labels]
            scores[name] = evaluation(self.logits(split.sentences), truth, split.sources)
        return scores


def check_texts(texts: str | Iterable[str]) -> list[str]:
    """Return `texts` as a list; one string is a list of one.

    Raises:
        UserError: A text is empty or not a string, or `texts` is a table.
    """
    if isinstance(texts, str):
        texts = [texts]
    if getattr(texts, "ndim", 1) != 1 or isinstance(texts, bytes | dict):
        raise UserError(
            f"texts must be one string or a sequence of strings, not {type(texts).__name__}; of a "
            "table give the column with the text."
        )
    try:
        texts = list(texts)
    except TypeError as error:
        raise UserError(
            f"texts must be one string or a sequence of strings, not {type(texts).__name__}."
        ) from error
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise UserError(
                f"text {number} of {len(texts)} is {text!r}, of type {type(text).__name__}; "
                "every text must be a string."
            )
        if not text.strip():
            raise UserError(f"text {number} of {len(texts)} is empty; leave it out.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"text {number} of {len(texts)} is not valid Unicode: its character "
                f"{error.start + 1} is {text[error.start]!r}, half of a surrogate pair."
            ) from error
    return texts


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return (N, classes) probabilities, fp64."""
    logits = logits.astype(np.float64)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)

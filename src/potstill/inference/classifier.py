"""What every saved model can do once it is loaded: the protocol `Classifier`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np

from potstill.calibration import probabilities
from potstill.errors import UserError, check
from potstill.html import html_table, scores_table
from potstill.inference.explain import Explanation, word_spans
from potstill.progress import Progress, no_progress

if TYPE_CHECKING:
    from potstill.inference.evaluation import Scores

Threshold = float | Literal["goal"] | None
UNSURE = "unsure"  # the answer where a class has a lower probability than the threshold


class Classifier(Protocol):
    """A saved model, loaded.

    Attributes:
        classes_: (classes,) names of the classes, in the order of the columns of `logits`.
        title: Name for tables, such as "GPT-2 + LoRA".
        n_parameters: Number of parameters, tied ones counted once.
        max_length: Maximum number of tokens of a text; the rest of a longer one is not read.
        config: The config.json of the run that trained it; empty where PEFT saved the adapter.
        temperature: What `logits` are divided by for probabilities. 1 for a student, whose weights
            and exported graph have it.
    """

    classes_: np.ndarray
    title: str
    n_parameters: int
    max_length: int
    config: dict[str, Any]
    temperature: float = 1.0

    def logits(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the (N, classes) logits of N texts, fp32; one string counts as one text.

        Raises:
            UserError: A text is empty or not a string.
        """
        ...

    def word_logits(self, texts: str | Iterable[str]) -> list[np.ndarray]:
        """Return the logits of each text after each of its W words, and of the whole text.

        A decoder gives those of the text cut after the word, and so does a student without a word
        head. One with it, as `distil` makes it, gives its estimate of them, from one reading of the
        whole.

        Args:
            texts: One string, or a list, an array or a column of a table with N strings.

        Returns:
            N arrays of (W + 1, classes), fp32. A word is what is between spaces; those beyond the
            maximum length are left out.

        Raises:
            UserError: A text is empty or not a string.
        """
        ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: str, *, threshold: Threshold = None
    ) -> str: ...

    @overload
    def predict(self, texts: Iterable[str], *, threshold: Threshold = None) -> np.ndarray: ...

    def predict(
        self,
        texts: str | Iterable[str],
        *,
        threshold: Threshold = None,
    ) -> str | np.ndarray:
        """Return the class of each text: the most probable, or what the model's goal prefers.

        Args:
            texts: One string, or a list, an array or a column of a table with N strings.
            threshold: The answer is "unsure" where the class has a lower probability than this;
                "goal": than what was chosen in training for its goal.

        Returns:
            One label for one string, else a (N,) array of labels.

        Raises:
            UserError: A text is empty or not a string; or the model has no threshold of a goal.
            UsageError: The threshold is not from 0 to 1.
        """
        least = self.check_threshold(threshold)
        labels = self.answers(self.predict_proba(texts), least)
        return str(labels[0]) if isinstance(texts, str) else labels

    def predict_proba(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the (N, classes) probabilities of N texts, with columns as in `classes_`.

        Args:
            texts: As in `predict`; one string gives one row.

        Raises:
            UserError: A text is empty or not a string.
        """
        return probabilities(self.logits(texts) / self.temperature)

    @property
    def offsets(self) -> np.ndarray | None:
        """(classes,) what is added to log-probabilities to decide on a class, for the goal that the
        model was trained with; None without one."""
        decision = self.config.get("decision")
        return np.array(decision["offsets"]) if decision else None

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the (N,) indices of the classes for (N, classes) probabilities: of the most
        probable, or of what the model's goal prefers."""
        offsets = self.offsets
        if offsets is None:
            return probabilities.argmax(1)
        with np.errstate(divide="ignore"):  # of a probability of 0
            return (np.log(probabilities) + offsets).argmax(1)

    def answers(self, probabilities: np.ndarray, threshold: float = 0.0) -> np.ndarray:
        """Return the (N,) labels for (N, classes) probabilities, UNSURE where the label's is below
        `threshold`."""
        indices = self.decide(probabilities)
        unsure = probabilities[np.arange(len(indices)), indices] < threshold
        return np.where(unsure, UNSURE, self.classes_[indices])

    def check_threshold(self, threshold: Threshold) -> float:
        """Return the threshold as a number, 0 for none; errors are as of `predict`."""
        if threshold is None:
            return 0.0
        if UNSURE in self.classes_:
            raise UserError(f"`threshold`: the model has a class {UNSURE!r}; rename that class.")
        if threshold == "goal":
            least = (self.config.get("decision") or {}).get("threshold", 0.0)
            if not least:
                raise UserError(
                    "`threshold` goal: the model was trained without `goal` precision@R or "
                    "recall@P; give a probability."
                )
            return float(least)
        check("threshold", threshold, 0 <= threshold <= 1, "a probability from 0 to 1, or goal")
        return float(threshold)

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
            UserError: A text is empty or not a string.
        """
        checked = check_texts(texts)
        explanations = []
        for text, logits in zip(checked, self.word_logits(checked), strict=True):
            *word_probabilities, whole = probabilities(logits / self.temperature)
            explanations.append(
                Explanation(
                    text,
                    tuple(self.classes_.tolist()),
                    str(self.answers(whole[None])[0]),
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
        progress: Progress = no_progress,
    ) -> "Scores":
        """Score the model on labelled data.

        Args:
            data: A corpus, of which every split but train is scored (train where there is no
                other); a file, a DataFrame or a pair (texts, labels), which is scored whole; a
                folder with dev files; "cola" or "minicola".
            text_column: Column or JSON key of the text in a file; several are joined with " ||| ".
                Default: sentence or text.
            label_column: Column or JSON key of the label in a file. Default: label.
            progress: Shows how far it is.

        Returns:
            A dict, which notebooks show as a table. For each split it has what results.json has:
            "sentences", "loss" (mean cross-entropy in nats), "accuracy", "mcc", "mcc_95" (its 95 %
            bootstrap interval), "macro_f1", "majority" (the accuracy of the most frequent class),
            "ece" (expected calibration error), "confusion" (counts, rows the truth), "classes"
            (precision, recall, F1 and support of each) and "groups" (accuracy by source); for a
            model with the threshold of a goal, "answered".

        Raises:
            UserError: The data is missing or damaged, or has a label that is not in `classes_`.
        """
        # Prediction alone needs neither corpora nor measures.
        from potstill.inference.evaluation import evaluate

        return evaluate(
            self,
            data,
            text_column=text_column,
            label_column=label_column,
            progress=progress,
        )

    def _repr_html_(self) -> str:
        """Return what the model is, and its scores where they are known, as notebooks show it."""
        rows: list[tuple[str, object]] = [("parameters", f"{self.n_parameters:,}")]
        rows.append(("classes", ", ".join(map(str, self.classes_))))
        if "data" in self.config:
            rows.append(("trained on", self.config["data"]["name"]))
        table = html_table((self.title, ""), rows)
        chosen = getattr(self, "results", {}).get("chosen")
        return table + scores_table(chosen) if chosen else table


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


def check_finite(logits: np.ndarray, folder: Path) -> None:
    """Raise UserError if a logit of the model in `folder` is not a finite number."""
    if not np.isfinite(logits).all():
        raise UserError(
            f"the model in {folder} answers with numbers that are not finite; train it again, with "
            "a lower `lr`."
        )

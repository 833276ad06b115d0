"""DistilRNN as a scikit-learn estimator."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from potstill.data.corpus import Corpus
from potstill.data.splits import Split
from potstill.errors import UsageError, UserError, check
from potstill.files import ADAPTER_CONFIG
from potstill.inference.classifier import check_texts
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.student import StudentClassifier
from potstill.inference.teacher import load_teacher
from potstill.recipes.distil import distil
from potstill.recipes.lora import finetune
from potstill.recipes.rnn import train_baseline
from potstill.settings import (
    DataSettings,
    DecisionSettings,
    DistilSettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)


class DistilRNNClassifier(ClassifierMixin, BaseEstimator):
    """A DistilRNN that learns to classify texts, as a scikit-learn estimator.

    Without a teacher it learns from the labels alone; with one, it is distilled. It works in a
    Pipeline, in cross_val_score and in GridSearchCV, and can be cloned and pickled. Nothing is
    printed and no file is left, except for the cache of a teacher's logits. With the same seed,
    data and number of threads, training gives the same weights.

    Args:
        teacher: None; the folder of a LoRA adapter, whose classes must be those of `y`; or the
            name of a base model such as "smollm2", which `fit` first fine-tunes on the same texts.
        transfer_set: Folder of a transfer set with the logits of that adapter; `potstill transfer`
            makes it.
        seed: Random seed, from 0 to 4294967295.
        epochs: Passes over the texts. Default: 20, from 20,000 texts on fewer, from 100,000 on 4.
        batch_size: Texts per step. Default: 32, from 20,000 texts on 64, and on a GPU 1024 from
            200,000 on.
        lr: Peak learning rate. Default: 2e-3, from 20,000 texts on 1e-3 for a batch of 64, and with
            the square root of the batch size.
        weight_decay: Weight decay of AdamW, applied to matrices only.
        pretrain_epochs: Passes over the texts as a language model before. Default: 0; from random
            weights 6, with a transfer set 3.
        holdout: Fraction of the texts held out to choose the epoch; 0 takes the last epoch.
        cell: Recurrent cell: "gru", "lstm" or "rnn".
        hidden_size: Units of each direction.
        embedding_size: Size of the token embeddings.
        layers: Number of recurrent layers.
        bidirectional: Whether texts are read in both directions.
        dropout: Dropout probability.
        init: What the student starts from: "base", DistilRNN-base, which comes with potstill;
            "none", random weights; or the folder of a base or of a saved student. With a base,
            `vocab_size` does not apply. Default: "base", and "none" for a network of another shape.
        vocab_size: Maximum size of the student's own vocabulary, above 257.
        max_length: Maximum number of tokens of a text; longer ones are truncated.
        match_prevalence: Whether to shift the class biases so that predicted class frequencies on
            the training texts match the true ones.
        class_weight: "none", or "balanced" to weigh the texts inversely to the frequency of their
            class.
        calibrate: Whether to fit the temperature of the probabilities on the held-out texts.
        goal: "none", or what `predict` decides for: "mcc", "accuracy", "macro_f1", or
            "precision@R:CLASS" or "recall@P:CLASS"; its thresholds are chosen on the held-out
            texts.
        temperature: Temperature of the distillation loss.
        alpha: Weight of the teacher's logits; the labels have 1 - alpha.
        word_loss_weight: Weight of the per-word distillation loss; 0 turns it off.

    Attributes:
        classes_: (classes,) the classes, sorted, of the type that `y` had.
        student_: The trained `StudentClassifier`, for `save_pretrained` and `export_onnx`. Its own
            classes are the names of the classes, str.
    """

    def __init__(
        self,
        *,
        teacher: str | Path | None = None,
        transfer_set: str | Path | None = None,
        seed: int = 0,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float = 0.01,
        pretrain_epochs: int | None = None,
        holdout: float = 0.05,
        cell: str = "gru",
        hidden_size: int = 256,
        embedding_size: int = 128,
        layers: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.2,
        init: str | None = None,
        vocab_size: int = 8000,
        max_length: int = 128,
        match_prevalence: bool = True,
        class_weight: str = "none",
        calibrate: bool = True,
        goal: str = "none",
        temperature: float = 1.0,
        alpha: float = 0.5,
        word_loss_weight: float = 4.0,
    ):
        self.teacher = teacher
        self.transfer_set = transfer_set
        self.seed = seed
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.pretrain_epochs = pretrain_epochs
        self.holdout = holdout
        self.cell = cell
        self.hidden_size = hidden_size
        self.embedding_size = embedding_size
        self.layers = layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.init = init
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.match_prevalence = match_prevalence
        self.class_weight = class_weight
        self.calibrate = calibrate
        self.goal = goal
        self.temperature = temperature
        self.alpha = alpha
        self.word_loss_weight = word_loss_weight

    def fit(self, X: Iterable[str], y: Any) -> "DistilRNNClassifier":
        """Train on N texts and their labels.

        Args:
            X: A list, an array or a column of a table with N strings.
            y: N labels: strings, whole numbers or booleans.

        Raises:
            UserError: A text is empty or not a string, there is one class only, there are too few
                texts, or the teacher is missing or knows other classes.
            UsageError: A parameter is out of range.
            ValueError: `X` and `y` differ in length, or `y` is not one label per text.
        """
        texts = _as_texts(X)
        y = column_or_1d(y)
        check_consistent_length(texts, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise UserError(
                f"y has one class only, {str(self.classes_[0])!r}; a classifier needs two."
            )
        with _own_random_numbers(), tempfile.TemporaryDirectory(prefix="potstill-") as folder:
            self.student_ = self._train(texts, labels.tolist(), Path(folder))
        return self

    def predict(self, X: Iterable[str]) -> np.ndarray:
        """Return the class of each of N texts, (N,), of the type of `classes_`: the most probable,
        or what the goal prefers.

        Raises:
            NotFittedError: `fit` was not called.
            UserError: A text is empty or not a string.
        """
        check_is_fitted(self)
        by_name = {str(label): i for i, label in enumerate(self.classes_)}
        names = self.student_.predict(_as_texts(X))
        return self.classes_[[by_name[name] for name in names.tolist()]]

    def predict_proba(self, X: Iterable[str]) -> np.ndarray:
        """Return the (N, classes) probabilities of N texts, with columns as in `classes_`.

        Raises:
            NotFittedError: `fit` was not called.
            UserError: A text is empty or not a string.
        """
        check_is_fitted(self)
        probabilities = self.student_.predict_proba(_as_texts(X))
        names = self.student_.classes_.tolist()
        return probabilities[:, [names.index(str(label)) for label in self.classes_]]

    def _train(self, texts: list[str], labels: list[int], folder: Path) -> StudentClassifier:
        # Searches set numpy's numbers, which JSON does not know.
        parameters = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self.get_params(deep=False).items()
        }
        seed = parameters["seed"]
        check("seed", seed, 0 <= seed < 2**32, "a whole number from 0 to 4294967295")
        if self.transfer_set is not None and self.teacher is None:
            raise UsageError("`transfer_set` needs the `teacher` that labelled it.")
        data = _settings(DataSettings, parameters)
        training: dict[str, Any] = {
            "seed": seed,
            "student": _settings(StudentSettings, parameters),
            "pretraining": _settings(PretrainSettings, parameters),
            "data_settings": data,
            "train": _settings(TrainSettings, parameters),
            "decisions": _settings(DecisionSettings, parameters),
            "output": folder / "student",
        }
        distillation = _settings(DistilSettings, parameters)
        corpus = _corpus(texts, labels, [str(label) for label in self.classes_])
        if self.teacher is None:
            return train_baseline(corpus, **training)
        teacher = _load_teacher(str(self.teacher), corpus, data, seed, folder)
        corpus = _in_order_of(teacher, corpus)
        return distil(
            teacher, corpus, transfer_set=self.transfer_set, distillation=distillation, **training
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _settings(kind: type[Any], parameters: dict[str, Any]) -> Any:
    """Return the settings of a `kind`, with those fields that are among the parameters."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in parameters.items() if name in names})


def _load_teacher(
    teacher: str, corpus: Corpus, data: DataSettings, seed: int, folder: Path
) -> DecoderClassifier:
    """Return the teacher: loaded from its folder, or else tuned on `corpus`."""
    if (Path(teacher) / ADAPTER_CONFIG).is_file():
        return load_teacher(Path(teacher))
    try:
        return finetune(
            teacher,
            corpus,
            seed=seed,
            data_settings=data,
            output=folder / "teacher",
        )
    except UserError as error:
        raise UserError(
            f"`teacher` {teacher} is not the folder of an adapter, and as a base model it can't be "
            f"tuned: {error}"
        ) from error


def _as_texts(X: Iterable[str]) -> list[str]:
    if isinstance(X, str):
        raise UserError("X must be a sequence of strings, not one string.")
    return check_texts(X)


def _corpus(texts: list[str], labels: list[int], names: list[str]) -> Corpus:
    rows = "\n".join(f"{names[label]}\t{text}" for text, label in zip(texts, labels, strict=True))
    sha256 = hashlib.sha256(rows.encode()).hexdigest()
    return Corpus("texts", tuple(names), {"train": Split(texts, labels)}, "data in memory", sha256)


def _in_order_of(teacher: DecoderClassifier, corpus: Corpus) -> Corpus:
    """Return `corpus` with its classes in the order of the teacher's.

    Raises:
        UserError: The teacher has other classes.
    """
    order = teacher.classes_.tolist()
    if sorted(order) != sorted(corpus.labels):
        raise UserError(
            f"`teacher` {teacher.folder} knows {', '.join(order)}, but y has "
            f"{', '.join(corpus.labels)}; they must be the same."
        )
    split = corpus.splits["train"]
    labels = [order.index(corpus.labels[label]) for label in split.labels]
    return _corpus(split.sentences, labels, order)


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Keep torch's random state as it is outside the block."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        yield

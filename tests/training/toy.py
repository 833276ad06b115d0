"""A problem that a small student learns in a few epochs."""

import contextlib

import numpy as np
import torch
from torch.nn import functional as F

from potstill.data.batching import LabelledDataset
from potstill.settings import TrainSettings
from potstill.student.model import DistilRNN, StudentConfig
from potstill.training.checkpoint import Checkpoint
from potstill.training.loop import train
from potstill.training.losses import classification_loss

SETTINGS = TrainSettings(batch_size=8, lr=0.02)
SEED = 11
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def examples(sentences=60, seed=0) -> LabelledDataset:
    """Sentences that have token 1 somewhere, label 1, or token 2, label 0."""
    rng = np.random.default_rng(seed)
    tokens, labels = [], []
    for _ in range(sentences):
        words = rng.integers(3, 20, rng.integers(1, 9))
        label = int(rng.integers(2))
        words[rng.integers(len(words))] = 1 if label else 2
        tokens.append(words.tolist())
        labels.append(label)
    return LabelledDataset(tokens, labels)


TRAIN, HOLDOUT, DEV = examples(), examples(30, 1), examples(30, 2)


def student(dropout=0.0, hidden=8) -> DistilRNN:
    torch.manual_seed(3)
    config = StudentConfig("gru", hidden, 8, 1, dropout=dropout, vocab_size=20, classes=2)
    return DistilRNN(config)


def scaled_loss(factor):
    def loss(logits, batch):
        return factor * F.cross_entropy(logits, batch.labels)

    return loss


class Run:
    """One call of `train`, what it left and what it reported."""

    def __init__(self, folder, settings=SETTINGS, epochs=3, model=None, **changes):
        self.model = model or student(dropout=0.2)
        identity = changes.pop("identity", {"lr": settings.lr})
        self.checkpoint = Checkpoint(folder, identity, minutes=changes.pop("minutes", 5.0))
        noting = changes.pop("noting", False)
        self.reported = []
        arguments = {
            "dataset": TRAIN,
            "loss_function": classification_loss,
            "evaluations": {"holdout": HOLDOUT, "dev": DEV},
            "seed": SEED,
            "report": self.reported.append,
        }
        with self.checkpoint.interruption if noting else contextlib.nullcontext():
            self.trained = train(
                self.model,
                settings=settings,
                epochs=epochs,
                checkpoint=self.checkpoint,
                **arguments | changes,
            )


def equal(tensors, others) -> bool:
    return tensors.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in tensors.items()
    )

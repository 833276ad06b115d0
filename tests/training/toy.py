"""A problem that a small student learns in a few epochs."""

import numpy as np
import torch
from torch import nn

from potstill.settings import TrainSettings
from potstill.student.model import DistilRNN, StudentConfig
from potstill.training.checkpoint import TrainingState
from potstill.training.loop import Examples, train

SETTINGS = TrainSettings(batch_size=8, lr=0.02)
SEED = 11
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def examples(sentences=60, seed=0) -> Examples:
    """Sentences that have token 1 somewhere, label 1, or token 2, label 0."""
    rng = np.random.default_rng(seed)
    tokens, labels = [], []
    for _ in range(sentences):
        words = rng.integers(3, 20, rng.integers(1, 9))
        label = int(rng.integers(2))
        words[rng.integers(len(words))] = 1 if label else 2
        tokens.append(words.tolist())
        labels.append(label)
    return Examples(tokens, labels)


TRAIN, HOLDOUT, DEV = examples(), examples(30, 1), examples(30, 2)


def student(dropout=0.0, hidden=8) -> DistilRNN:
    torch.manual_seed(3)
    return DistilRNN(StudentConfig(20, 2, "gru", 8, hidden, layers=1, dropout=dropout))


def cross_entropy(of=TRAIN, factor=1.0):
    labels = torch.tensor(of.labels, device=DEVICE)

    def loss(logits, index):
        return factor * nn.functional.cross_entropy(logits, labels.to(logits.device)[index])

    return loss


class Run:
    """One call of `train`, what it left and what it reported."""

    def __init__(self, folder, settings=SETTINGS, epochs=3, model=None, **changes):
        self.model = model or student(dropout=0.2)
        self.state = TrainingState(folder, changes.pop("identity", {"lr": settings.lr}))
        self.reported = []
        arguments = {
            "examples": TRAIN,
            "loss_function": cross_entropy(),
            "evaluations": {"holdout": HOLDOUT, "dev": DEV},
            "seed": SEED,
            "report": self.reported.append,
        }
        self.trained = train(
            self.model, settings=settings, epochs=epochs, state=self.state, **arguments | changes
        )


def equal(tensors, others) -> bool:
    return tensors.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in tensors.items()
    )

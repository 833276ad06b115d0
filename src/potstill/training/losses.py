"""What a model is trained by."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.data.batching import LabelledBatch

# Maps what the model returns for a batch, and the batch, to the mean loss over its sentences.
LossFunction = Callable[[Any, Any], Tensor]


def classification_loss(
    logits: Tensor, batch: LabelledBatch, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of (B, classes) `logits`, each sentence's times the weight of
    its class.

    It is the mean over the sentences, not over their weights as torch's, so that the mean over
    parts of a batch is that of the batch.
    """
    if class_weights is None:
        return F.cross_entropy(logits, batch.labels)
    total = F.cross_entropy(logits, batch.labels, class_weights, reduction="sum")
    return total / len(batch)


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Return (classes,) weights N / (classes · N_class), of which the mean over the N `labels` is 1
    (King and Zeng 2001, *Logistic Regression in Rare Events Data*, section 4.1; they are
    scikit-learn's "balanced")."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1))

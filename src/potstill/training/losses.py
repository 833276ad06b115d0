"""What a model is trained by."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from potstill.data.batching import LabelledBatch

# Maps what the model returns for a batch, and the batch, to the mean loss over its sentences.
LossFunction = Callable[[Any, Any], Tensor]


def classification_loss(logits: Tensor, batch: LabelledBatch) -> Tensor:
    """Return the mean cross-entropy of (B, classes) `logits`."""
    return F.cross_entropy(logits, batch.labels)

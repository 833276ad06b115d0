"""Training steps on data that is already on the GPU."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from potstill.student.heads import NextTokenHead
from potstill.student.layered import (
    LayeredClassifier,
    LayeredLanguageModel,
    copy_weights,
    move_gradients,
)
from potstill.student.model import DistilRNN
from potstill.training.graphs import StepGraphs
from potstill.training.losses import LossFunction
from potstill.training.optim import update
from potstill.training.steps import BatchLogits


@runtime_checkable
class Resident(Protocol):
    """Tokenised sentences on one device, which come in batches of one length.

    lengths: (N,) tokens of each, on the processor.
    """

    @property
    def lengths(self) -> np.ndarray: ...

    def batch_of_length(self, rows: Tensor, length: int) -> Any: ...


class ResidentStep:
    """A step on a GPU by sentences of one length that are there already: the processor says which,
    and waits for nothing. Full batches are captured as in `StepGraphs`.

    Args:
        network: What computes, from `copies` of the trained weights.
        loss_function: Maps the network's output and a batch to the mean loss over its sentences.
        parameters: The weights that are trained.
        batch_size: Sentences of a full batch.
    """

    def __init__(
        self,
        network: LayeredClassifier | LayeredLanguageModel,
        loss_function: LossFunction,
        optimizer: Any,
        clip: float,
        *,
        parameters: list[Tensor],
        batch_size: int,
    ):
        self.network, self.loss_function = network, loss_function
        self.optimizer, self.clip, self.parameters = optimizer, clip, parameters
        self.batch_size = batch_size
        self.graphs = StepGraphs(optimizer, parameters[0].device)
        copy_weights(network.copies)

    def __call__(self, dataset: Resident, indices: np.ndarray) -> list[BatchLogits]:
        """Take a step by the sentences at `indices`; return what the network did, its logits or the
        loss, on the device."""
        length = int(dataset.lengths[indices[0]])

        def step(rows: Tensor) -> Tensor:
            return self._take(dataset.batch_of_length(rows, length))

        rows = torch.from_numpy(indices)
        # What is left over of a length comes once an epoch; capturing that takes longer.
        if len(rows) == self.batch_size:
            return [(rows, self.graphs.take(length, [rows], step))]
        return [(rows, step(rows.to(self.graphs.device, non_blocking=True)))]

    def _take(self, batch: Any) -> Tensor:
        output = self.network(batch)
        # What is left over counts as much less.
        share = len(batch) / self.batch_size
        (self.loss_function(output, batch) * share).backward()
        move_gradients(self.network.copies)
        update(self.optimizer, self.parameters, self.clip)
        copy_weights(self.network.copies)
        return (output[0] if isinstance(output, tuple) else output).detach()


def layered_classifier(model: nn.Module) -> LayeredClassifier:
    """Return what computes a student from copies of its weights."""
    assert isinstance(model, DistilRNN)
    return LayeredClassifier(model, copied=_on_gpu(model), dtype=model.product_dtype)


def layered_language_model(model: nn.Module) -> LayeredLanguageModel:
    """Return what computes a `NextTokenHead` from copies of its student's weights."""
    assert isinstance(model, NextTokenHead)
    student = model.student
    return LayeredLanguageModel(model, copied=_on_gpu(student), dtype=student.product_dtype)


def _on_gpu(student: DistilRNN) -> bool:
    return student.embedding.weight.is_cuda

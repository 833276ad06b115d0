"""Training steps: a plain one, and two that are faster for a decoder, a batch cut into microbatches
on a CPU's threads, and a whole step in one launch on a GPU."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.data.batching import UNLABELLED, Batch
from potstill.ops.dropout import own_generator
from potstill.ops.threads import map_in_threads
from potstill.training.graphs import StepGraphs
from potstill.training.losses import LossFunction
from potstill.training.optim import update

LENGTH_STEP = 8  # tokens; batches are padded to multiples of it, so that there are few shapes
BatchLogits = tuple[Tensor, Tensor]  # indices in the dataset (B,), logits (B, classes)


class Step(Protocol):
    """A training step: forward pass, loss, backward pass and update."""

    def __call__(self, dataset: Any, indices: np.ndarray) -> list[BatchLogits]:
        """Take a step by the batch at `indices`; return its logits, perhaps in several parts."""


@dataclass(frozen=True)
class PlainStep:
    """A step by Accelerate, on any device; `model` and `optimizer` are what it has prepared.

    Each of several processes takes its share of the batch, so that together they take the step of
    one. It returns the logits of labelled sentences alone: the others may be millions.
    """

    model: nn.Module
    loss_function: LossFunction
    optimizer: Any
    clip: float
    parameters: list[Tensor]
    accelerator: Accelerator

    def __call__(self, dataset: Any, indices: np.ndarray) -> list[BatchLogits]:
        processes = self.accelerator.num_processes
        share = indices[self.accelerator.process_index :: processes]
        # A process without a share has to take part; its sentence counts for nothing.
        batch = dataset.batch((share if len(share) else indices[:1]).tolist())
        labelled = (batch.labels != UNLABELLED).nonzero().squeeze(1)[: len(share)]
        batch = batch.to(self.accelerator.device)
        output = self.model(batch.input_ids, batch.lengths)
        # The gradients' mean over the processes, whose shares may differ by one, is to be that of
        # the whole batch.
        weight = len(share) * processes / len(indices)
        self.accelerator.backward(self.loss_function(output, batch) * weight)
        update(self.optimizer, self.parameters, self.clip)
        if not len(labelled):
            return []
        logits = output[0] if isinstance(output, tuple) else output
        return [(batch.indices[labelled], logits.detach()[labelled.to(logits.device)])]


@dataclass(frozen=True)
class MicrobatchStep:
    """A step whose backward pass is as in `backward_in_microbatches`."""

    model: nn.Module
    loss_function: LossFunction
    optimizer: Any
    clip: float
    parameters: list[Tensor]
    microbatch_tokens: int

    def __call__(self, dataset: Any, indices: np.ndarray) -> list[BatchLogits]:
        outputs = backward_in_microbatches(
            self.model,
            dataset,
            indices,
            self.loss_function,
            microbatch_tokens=self.microbatch_tokens,
        )
        update(self.optimizer, self.parameters, self.clip)
        return outputs


def backward_in_microbatches(
    model: nn.Module,
    dataset: Any,
    indices: np.ndarray,
    loss_function: LossFunction,
    *,
    microbatch_tokens: int,
) -> list[BatchLogits]:
    """Set the gradients of the mean loss over the batch at `indices`.

    The batch is cut into microbatches, each of about `microbatch_tokens` tokens at most, so that
    long sentences take no more memory than short ones; they go through the model in threads.

    Returns:
        The indices and the logits of each microbatch.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    threads = torch.get_num_threads()
    tokens = int(dataset.lengths[indices].sum())
    rounds = math.ceil(tokens / (threads * microbatch_tokens))
    parts = [part for part in np.array_split(indices, threads * rounds) if len(part)]
    seeds = torch.randint(2**62, (len(parts),)).tolist()

    def gradients(part: tuple[np.ndarray, int]) -> tuple[BatchLogits, tuple[Tensor, ...]]:
        part_indices, seed = part
        batch = dataset.batch(part_indices.tolist())
        with own_generator(seed):
            logits = model(batch.input_ids, batch.lengths)
        loss = loss_function(logits, batch) * (len(part_indices) / len(indices))
        # Not backward(): the threads would add to the same gradients at once.
        return (batch.indices, logits.detach()), torch.autograd.grad(loss, parameters)

    passed = map_in_threads(gradients, list(zip(parts, seeds, strict=True)))
    # Dense, as backward() leaves them: the fused AdamW reads a view of another order wrongly.
    totals = [grad.contiguous() for grad in passed[0][1]]
    for _, grads in passed[1:]:
        torch._foreach_add_(totals, grads)
    for parameter, grad in zip(parameters, totals, strict=True):
        parameter.grad = grad
    return [output for output, _ in passed]


class GraphedStep:
    """A step of a decoder that is captured as a CUDA graph, as in `StepGraphs`.

    `model` must read no padding on the right.

    longest: tokens of the longest sentence; a decoder may have no positions for more.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_function: LossFunction,
        optimizer: Any,
        clip: float,
        *,
        longest: int,
    ):
        self.model, self.loss_function = model, loss_function
        self.optimizer, self.clip, self.longest = optimizer, clip, longest
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.graphs = StepGraphs(optimizer, self.parameters[0].device)

    def __call__(self, dataset: Any, indices: np.ndarray) -> list[BatchLogits]:
        batch = dataset.batch(indices.tolist())
        return [(batch.indices, self.take(batch))]

    def take(self, batch: Batch) -> Tensor:
        """Take a step by `batch`, wherever its tensors are; return its (B, classes) logits."""
        length = batch.input_ids.shape[1]
        rounded = min(-(-length // LENGTH_STEP) * LENGTH_STEP, self.longest)
        batch = replace(batch, input_ids=F.pad(batch.input_ids, (0, rounded - length)))
        names = [f.name for f in fields(batch) if f.name != "indices"]

        def step(*tensors: Tensor) -> Tensor:
            here = replace(batch, **dict(zip(names, tensors, strict=True)))
            logits = self.model(here.input_ids, here.lengths)
            self.loss_function(logits, here).backward()
            update(self.optimizer, self.parameters, self.clip)
            return logits.detach()

        return self.graphs.take(batch.input_ids.shape, [getattr(batch, n) for n in names], step)

"""Training steps: a plain one, and two that are faster, a batch cut into microbatches on a CPU's
threads, and a whole step in one launch on a GPU.

A step over short sentences is thousands of small operations, and a GPU has finished each before
the next is launched. A CUDA graph launches all of them at once, for one shape of batch.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.data.batching import Batch
from potstill.ops.dropout import own_generator
from potstill.training.distributed import map_in_threads
from potstill.training.epoch import Dataset
from potstill.training.losses import LossFunction
from potstill.training.optim import update

LENGTH_STEP = 8  # tokens; batches are padded to multiples of it, so that there are few shapes
BatchLogits = tuple[Tensor, Tensor]  # indices in the dataset (B,), logits (B, classes)

logger = logging.getLogger(__name__)


class Step(Protocol):
    """A training step: forward pass, loss, backward pass and update."""

    def __call__(self, dataset: Dataset, indices: np.ndarray) -> list[BatchLogits]:
        """Take a step by the batch at `indices`; return its logits, perhaps in several parts."""


@dataclass(frozen=True)
class PlainStep:
    """A step by Accelerate, on any device, in one of several processes; `model` and `optimizer`
    are what it has prepared."""

    model: nn.Module
    loss_function: LossFunction
    optimizer: Any
    clip: float
    parameters: list[Tensor]
    accelerator: Accelerator

    def __call__(self, dataset: Dataset, indices: np.ndarray) -> list[BatchLogits]:
        batch = dataset.batch(indices.tolist()).to(self.accelerator.device)
        output = self.model(batch.input_ids, batch.lengths)
        self.accelerator.backward(self.loss_function(output, batch))
        update(self.optimizer, self.parameters, self.clip)
        logits = output[0] if isinstance(output, tuple) else output
        return [(batch.indices, logits.detach())]


@dataclass(frozen=True)
class MicrobatchStep:
    """A step whose backward pass is as in `backward_in_microbatches`."""

    model: nn.Module
    loss_function: LossFunction
    optimizer: Any
    clip: float
    parameters: list[Tensor]
    microbatch_tokens: int

    def __call__(self, dataset: Dataset, indices: np.ndarray) -> list[BatchLogits]:
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
    dataset: Dataset,
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
    tokens = sum(len(dataset.tokens[i]) for i in indices)
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


@dataclass(frozen=True)
class GraphCapture:
    """A captured step: `replay` takes it on what is in `batch` by then, and leaves the (B, classes)
    `logits`."""

    batch: Batch
    logits: Tensor
    replay: Callable[[], None]


class GraphedStep:
    """A step that is captured as a CUDA graph for each shape of batch when it comes for the second
    time. Before, and where capturing fails, its operations are launched one by one: what libraries
    prepare when they first see a shape can't be captured.

    `model` must read no padding on the right. It and `loss_function` must do the same operations
    whatever the tokens are, and read nothing but the GPU's memory.

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
        self.device = self.parameters[0].device
        self.seen: set[torch.Size] = set()
        self.captures: dict[torch.Size, GraphCapture] = {}
        self.fails = False
        self._pool = torch.cuda.graph_pool_handle()  # shared: no step begins before the last ends
        for group in optimizer.param_groups:
            # Where the graphs will look for it.
            group["lr"] = torch.tensor(group["lr"], device=self.device)

    def __call__(self, dataset: Dataset, indices: np.ndarray) -> list[BatchLogits]:
        batch = dataset.batch(indices.tolist())
        return [(batch.indices, self.take(batch))]

    def take(self, batch: Batch) -> Tensor:
        """Take a step by `batch`, wherever its tensors are; return its (B, classes) logits."""
        length = batch.input_ids.shape[1]
        rounded = min(-(-length // LENGTH_STEP) * LENGTH_STEP, self.longest)
        batch = replace(batch, input_ids=F.pad(batch.input_ids, (0, rounded - length)))
        shape = batch.input_ids.shape
        if shape in self.seen and shape not in self.captures and not self.fails:
            self._capture(batch)
        self.seen.add(shape)
        if capture := self.captures.get(shape):
            for field in fields(batch):
                if field.name != "indices":
                    getattr(capture.batch, field.name).copy_(getattr(batch, field.name))
            capture.replay()
            return capture.logits.clone()  # the next replay overwrites them
        return self._step(batch.to(self.device, copy=True))

    def _step(self, batch: Batch) -> Tensor:
        logits = self.model(batch.input_ids, batch.lengths)
        self.loss_function(logits, batch).backward()
        update(self.optimizer, self.parameters, self.clip)
        return logits.detach()

    def _capture(self, batch: Batch) -> None:
        batch = batch.to(self.device, copy=True)
        self._set_capturable(True)
        try:
            logits, replay = capture_graph(lambda: self._step(batch), self._pool)
            self.captures[batch.input_ids.shape] = GraphCapture(batch, logits, replay)
        except RuntimeError as error:
            self.fails = True
            self.captures.clear()  # they have the random numbers of another generator
            self._set_capturable(False)
            self.optimizer.zero_grad(set_to_none=True)
            # Report the root cause; later errors only say that the capture failed.
            cause: BaseException = error
            while cause.__context__:
                cause = cause.__context__
            reason = str(cause).strip().partition("\n")[0]
            logger.warning(f"slower than it could be: CUDA graphs are not available ({reason})")

    def _set_capturable(self, capturable: bool) -> None:
        for group in self.optimizer.param_groups:
            group["capturable"] = capturable  # outside of captures PyTorch warns of it


def capture_graph(step: Callable[[], Tensor], pool: Any) -> tuple[Tensor, Callable[[], None]]:
    """Capture `step` as a CUDA graph, without computing anything.

    Returns:
        The tensor where the result will be, and what computes it.

    Raises:
        RuntimeError: It does what can't be captured.
    """
    graph = torch.cuda.CUDAGraph()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    try:
        # A capture that fails would leave its stream the current one …
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
            result = step()
    except RuntimeError:
        # … and the generator of random numbers in the belief that it is captured.
        generator.graphsafe_set_state(generator.clone_state())
        raise
    return result, graph.replay

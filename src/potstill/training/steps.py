"""Training steps that are faster than a plain one: a batch in parts on a CPU's threads, and a whole
step in one launch on a GPU.

A step over short sentences is thousands of small operations, and a GPU has finished each before
the next is launched. A CUDA graph launches all of them at once, for one shape of batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.console import say
from potstill.data.batching import Batch, collate
from potstill.ops.dropout import own_generator
from potstill.training.distributed import side_by_side
from potstill.training.optim import update

# (what the model gave for a batch, places in the training set (B,)) to the mean loss
LossFunction = Callable[[Any, Tensor], Tensor]

LENGTH_STEP = 8  # tokens; batches are padded to multiples of it, so that there are few shapes


def backward_apart(
    model: nn.Module,
    tokens: list[list[int]],
    batch_index: np.ndarray,
    loss_function: LossFunction,
    part_tokens: int,
) -> list[tuple[Tensor, Tensor]]:
    """The backward pass of one batch, cut into parts that are passed through side by side, each of
    about `part_tokens` at most, so that long sentences take no more memory than short ones.

    Sets the gradients of the mean loss over all; returns each part's places and logits.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    sentences, threads = len(batch_index), torch.get_num_threads()
    rounds = math.ceil(sum(len(tokens[i]) for i in batch_index) / (threads * part_tokens))
    parts = [p for p in np.array_split(batch_index, threads * rounds) if len(p)]
    seeds = torch.randint(2**62, (len(parts),)).tolist()

    def run(part: tuple[np.ndarray, int]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        index, seed = part
        batch = collate(tokens, index.tolist())
        with own_generator(seed):
            logits = model(batch.input_ids, batch.lengths)
        loss = loss_function(logits, batch.index) * (len(index) / sentences)
        # Not backward(): the threads would add to the same gradients at once.
        return batch.index, logits.detach(), torch.autograd.grad(loss, parameters)

    passed = side_by_side(run, list(zip(parts, seeds, strict=True)))
    # Dense, as backward() leaves them: the fused AdamW reads a view of another order wrongly.
    grads = [grad.contiguous() for grad in passed[0][2]]
    for _, _, more in passed[1:]:
        torch._foreach_add_(grads, more)
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    return [(index, logits) for index, logits, _ in passed]


@dataclass(frozen=True)
class Recording:
    """A step that `replay` does on what then is in `batch`; it leaves the (B, C) `logits`."""

    batch: Batch
    logits: Tensor
    replay: Callable[[], None]


class GraphedStep:
    """Forward pass, loss, backward pass and update of `model`, recorded for each shape of batch
    when it comes for the second time. Before, and where that fails, they are launched as they are:
    what libraries prepare when they first see a shape can't be recorded.

    `model` must read no padding on the right. It and `loss_function` must do the same operations
    whatever the tokens are, and read nothing but the GPU's memory.

    longest: tokens of the longest sentence; a decoder may have no places for more.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_function: Callable[[Any, Tensor], Tensor],
        optimizer: Any,
        clip: float,
        longest: int,
    ):
        self.model, self.loss_function = model, loss_function
        self.optimizer, self.clip, self.longest = optimizer, clip, longest
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.seen: set[torch.Size] = set()
        self.recordings: dict[torch.Size, Recording] = {}
        self.fails = False
        self._pool = torch.cuda.graph_pool_handle()  # shared: no step begins before the last ends
        for group in optimizer.param_groups:
            # Where the graphs will look for it.
            group["lr"] = torch.tensor(group["lr"], device=self.device)

    def __call__(self, batch: Batch) -> Tensor:
        """Takes a step by `batch`, wherever its tensors are; gives its (B, C) logits."""
        length = batch.input_ids.shape[1]
        rounded = min(-(-length // LENGTH_STEP) * LENGTH_STEP, self.longest)
        batch = replace(batch, input_ids=F.pad(batch.input_ids, (0, rounded - length)))
        shape = batch.input_ids.shape
        if shape in self.seen and shape not in self.recordings and not self.fails:
            self._record(batch)
        self.seen.add(shape)
        if recording := self.recordings.get(shape):
            for place, x in zip(_tensors(recording.batch), _tensors(batch), strict=True):
                place.copy_(x)
            recording.replay()
            return recording.logits.clone()  # the next replay overwrites them
        return self._step(self._moved(batch))

    def _moved(self, batch: Batch) -> Batch:
        return Batch(*(x.to(self.device, copy=True) for x in _tensors(batch)))

    def _step(self, batch: Batch) -> Tensor:
        logits = self.model(batch.input_ids, batch.lengths)
        self.loss_function(logits, batch.index).backward()
        update(self.optimizer, self.parameters, self.clip)
        return logits.detach()

    def _record(self, batch: Batch) -> None:
        batch = self._moved(batch)
        self._capturable(True)
        try:
            logits, replay = record(lambda: self._step(batch), self._pool)
            self.recordings[batch.input_ids.shape] = Recording(batch, logits, replay)
        except RuntimeError as error:
            self.fails = True
            self.recordings.clear()  # they have the random numbers of another generator
            self._capturable(False)
            self.optimizer.zero_grad(set_to_none=True)
            first: BaseException = error  # those after it say that there was one
            while first.__context__:
                first = first.__context__
            reason = str(first).strip().partition("\n")[0]
            say(f"slower than it could be: CUDA graphs can't be had here ({reason})")

    def _capturable(self, recorded: bool) -> None:
        for group in self.optimizer.param_groups:
            group["capturable"] = recorded  # outside of recordings PyTorch warns of it


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    return batch.index, batch.input_ids, batch.lengths


def record(step: Callable[[], Tensor], pool: Any) -> tuple[Tensor, Callable[[], None]]:
    """Where `step` will leave what it computes, and what computes it; until that is called, nothing
    is computed.

    Raises:
        RuntimeError: it does what can't be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    try:
        # A recording that fails would leave its stream the current one …
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
            found = step()
    except RuntimeError:
        # … and the generator of random numbers in the belief that it is recorded.
        generator.graphsafe_set_state(generator.clone_state())
        raise
    return found, graph.replay

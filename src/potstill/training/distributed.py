"""Processes, and predictions that several processes share."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn

from potstill.data.batching import Batch, collate
from potstill.data.token_array import Tokens
from potstill.ops.threads import map_in_threads

BATCH_TOKENS = 1024  # passed through a model at once
# Times as many on a GPU, which computes with few faster than its operations can be launched.
GPU_BATCH = 256


def process() -> PartialState:
    """Return this process's place among all; alone unless a launcher started several.

    Accelerate must be told where there is no accelerator: it would let processes launched on CPUs
    each run by itself.
    """
    return PartialState(cpu=not torch.accelerator.is_available(), backend=_backend())


def _backend() -> str | None:
    """Return how processes talk to each other; None for Accelerate's choice, which is NCCL on GPUs
    and wants one for each process."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return "gloo" if 0 < gpus < int(os.environ.get("LOCAL_WORLD_SIZE", 1)) else None


def largest_of_processes(number: int) -> int:
    """Return the largest of the numbers that the processes give; all have to call this."""
    tensor = torch.tensor(number, device=process().device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return int(tensor)


def predict_logits(
    model: nn.Module,
    tokens: Tokens,
    *,
    batch_tokens: int = BATCH_TOKENS,
    together: bool = True,
) -> Tensor:
    """Return (N, classes) logits of N sentences in order, fp32, on the CPU, by
    `model(input_ids, lengths)`; else as `predict`."""

    def logits(batch: Batch) -> Tensor:
        return model(batch.input_ids, batch.lengths).float().cpu()

    return torch.stack(predict(model, tokens, logits, batch_tokens=batch_tokens, together=together))


def predict(
    model: nn.Module,
    tokens: Tokens,
    answer: Callable[[Batch], Iterable[Any]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    together: bool = True,
) -> list[Any]:
    """Return what `answer` returns for each sentence, in order; it gets batches on the device of
    `model`.

    The sentences go through sorted by length, about `batch_tokens` tokens at a time, on a GPU
    GPU_BATCH times as many. Several processes do that `together`, sharing the work, and all get the
    whole; or each for sentences of its own.
    """
    state = process()
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]), reverse=True)
    if together:
        order = order[state.process_index :: state.num_processes]
    device = next(model.parameters()).device
    if device.type != "cpu":
        batch_tokens *= GPU_BATCH

    @torch.no_grad()
    def answer_batch(indices: list[int]) -> tuple[list[int], Iterable[Any]]:
        return indices, answer(collate(tokens, indices).to(device))

    batches = []
    while order:
        size = max(1, batch_tokens // len(tokens[order[0]]))
        batches.append(order[:size])
        order = order[size:]
    was_training = model.training
    model.eval()
    if device.type == "cpu":
        parts = map_in_threads(answer_batch, batches)
    else:
        parts = [answer_batch(indices) for indices in batches]
    model.train(was_training)
    if together and state.num_processes > 1:
        parts = gather_object(parts)
    by_index = {i: a for indices, answers in parts for i, a in zip(indices, answers, strict=True)}
    return [by_index[i] for i in range(len(tokens))]

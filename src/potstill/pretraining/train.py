"""Training DistilRNN-base on general text, on the device that holds all of it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from potstill.data.ragged import equal_length_batches
from potstill.ops.parameters import trainable_parameters
from potstill.pretraining.heads import PretrainingHeads
from potstill.pretraining.losses import (
    NAMES,
    REPLACED_WEIGHT,
    make_batch,
    pretraining_losses,
)
from potstill.pretraining.text import PretrainingText
from potstill.progress import Progress, no_progress
from potstill.settings import ResolvedTrainSettings
from potstill.student.layered import LayeredStudent, copy_module, copy_weights, move_gradients
from potstill.student.model import DistilRNN
from potstill.training.checkpoint import Checkpoint, EpochProgress
from potstill.training.finite import DivergedError, NonFiniteError
from potstill.training.graphs import StepGraphs
from potstill.training.history import EpochMetrics, TrainResult
from potstill.training.optim import adamw, current_lr, epoch_seed, seed_epoch, set_lr, update

SHORTEST = 2  # tokens of a text; one alone has no neighbour


def pretrain_base(
    student: DistilRNN,
    heads: PretrainingHeads,
    text: PretrainingText,
    settings: ResolvedTrainSettings,
    *,
    epochs: int,
    seed: int,
    checkpoint: Checkpoint,
    bf16: bool,
    report: Callable[[EpochMetrics], None] = lambda metrics: None,
    progress: Progress = no_progress,
) -> list[EpochMetrics]:
    """Train all of `student` but the layer that scores classes, and `heads`, in place.

    Args:
        student: Bidirectional, of GRUs, on the device of `text`, as are the heads.
        text: What to learn from.
        settings: Its epochs are not read.
        epochs: Passes over the text.
        seed: Determines the batches and the dropout.
        checkpoint: Keeps what it takes to continue; where it has a state, training goes on from it.
        bf16: Compute in bf16 by copies of the weights, which stay in fp32: what a GPU is fast at.
        report: Is called after each epoch.

    Returns:
        The mean losses of each epoch, by name.

    Raises:
        DivergedError: The loss or a gradient is not finite.
        UserError: The checkpoint is damaged, or of other settings.
    """
    student.score.requires_grad_(False)
    model = nn.ModuleDict({"student": student, "heads": heads}).train()
    network = LayeredStudent(student, copied=bf16)
    copies, low_heads, dtype = network.copies, heads, student.product_dtype
    if bf16:
        dtype = torch.bfloat16
        copied, pairs = copy_module(heads, dtype)
        assert isinstance(copied, PretrainingHeads)
        low_heads, copies = copied, copies + pairs
    optimizer, trainable = adamw(model, settings), trainable_parameters(model)
    result, begun = TrainResult([], {}), EpochProgress()
    if checkpoint.exists():
        result, begun = checkpoint.load(trainable, optimizer)
        copy_weights(copies)

    weights = torch.tensor([0.5, 0.5, 1.0, 1.0, REPLACED_WEIGHT], device=text.origin.device)
    parameters = list(trainable.values())
    graphs = StepGraphs(optimizer, text.origin.device) if text.origin.is_cuda else None

    def step(indices: Tensor, length: int) -> Tensor:
        def take(rows: Tensor) -> Tensor:
            batch = make_batch(text, rows, length)
            losses = pretraining_losses(network, low_heads, batch, dtype)
            # A batch that is not full counts as much less.
            ((losses * weights).sum() * (len(rows) / settings.batch_size)).backward()
            move_gradients(copies)
            update(optimizer, parameters, settings.clip)
            copy_weights(copies)
            return losses.detach() * len(rows)

        if graphs and len(indices) == settings.batch_size:
            return graphs.take(length, [indices], take)
        return take(indices)

    n_texts = int((text.tokens.lengths >= SHORTEST).sum())
    with progress(epochs * n_texts) as show:
        for epoch in range(len(result.history) + 1, epochs + 1):
            batches = _batches(text, settings.batch_size, seed, epoch)
            sums = torch.zeros(len(NAMES), device=text.origin.device)
            if begun.steps:
                begun.restore_random_numbers()
                sums += begun.columns()[0][0].to(sums.device)
            done = (epoch - 1) * n_texts + sum(len(batch) for batch, _ in batches[: begun.steps])
            for number, (indices, length) in enumerate(batches[begun.steps :], begun.steps):
                step_number = (epoch - 1) * len(batches) + number
                set_lr(optimizer, settings, step_number, epochs * len(batches))
                try:
                    sums += step(indices, length)
                except NonFiniteError as error:
                    raise DivergedError(epoch, number + 1, current_lr(optimizer)) from error
                done += len(indices)
                show(done, "DistilRNN-base")
                now = EpochProgress(number + 1, results=[(sums[None],)])
                checkpoint.after_step(result, trainable, optimizer, now)
            begun = EpochProgress()
            means = dict(zip(NAMES, (sums / n_texts).tolist(), strict=True))
            if not np.isfinite(list(means.values())).all():
                raise DivergedError(epoch, len(batches), current_lr(optimizer))
            metrics: EpochMetrics = {"epoch": epoch, "steps": len(batches)} | means
            result = TrainResult([*result.history, metrics], {})
            checkpoint.save(result, trainable, optimizer)
            report(metrics)
            checkpoint.end_if_asked()
    student.score.requires_grad_(True)
    student.eval()
    return result.history


@torch.no_grad()
def amplify_states(student: DistilRNN, factor: float) -> None:
    """Make the states of the highest layer about `factor` times as large.

    Its heads read states as small as they come, but a classifier that is trained on them for a few
    hundred steps does not. A GRU's state is as large as the candidate that it is moved to; where
    the tanh of that is nearly linear, so is the whole: the candidate's input and biases are
    multiplied, and the gates' view of the state is divided.
    """
    layer, hidden = student.config.layers - 1, student.config.hidden_size
    weights = dict(student.rnn.named_parameters())
    for direction in ("", "_reverse") if student.config.bidirectional else ("",):
        gates, candidate = slice(0, 2 * hidden), slice(2 * hidden, None)
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            weights[f"{name}_l{layer}{direction}"][candidate] *= factor
        weights[f"weight_hh_l{layer}{direction}"][gates] /= factor


def _batches(
    text: PretrainingText, batch_size: int, seed: int, epoch: int
) -> list[tuple[Tensor, int]]:
    """Seed an epoch's random numbers and return its batches."""
    seed_epoch(seed, epoch)
    generator = torch.Generator(text.origin.device).manual_seed(epoch_seed(seed, epoch))
    lengths = text.tokens.lengths
    return equal_length_batches(lengths, batch_size, generator, shortest=SHORTEST)

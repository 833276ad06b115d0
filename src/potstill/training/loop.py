"""The one training loop, for LoRA, distil and rnn alike."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from potstill.console import progress_bar
from potstill.data.batching import collate, length_batches
from potstill.metrics import confusion_counts, mcc_standard_error, score
from potstill.ops.parameters import trainable_parameters
from potstill.settings import TrainSettings
from potstill.training.checkpoint import Record, Trained, TrainingState, choose
from potstill.training.distributed import predict_logits, process
from potstill.training.optim import adamw, seed_epoch, set_lr, update
from potstill.training.steps import GraphedStep, LossFunction, backward_apart

UNLABELLED = -100  # in place of a label


@dataclass(frozen=True)
class Examples:
    """Tokenised sentences and their labels; those UNLABELLED are learned from, not scored."""

    tokens: list[list[int]]
    labels: list[int]


def train(
    model: nn.Module,
    examples: Examples,
    loss_function: LossFunction,
    evaluations: dict[str, Examples],
    settings: TrainSettings,
    epochs: int,
    seed: int,
    state: TrainingState,
    report: Callable[[Record], None],
    part_tokens: int | None = None,
) -> Trained:
    """Trains the parameters of `model` that require gradients.

    Args:
        model: maps (B, L) tokens and (B,) lengths to (B, C) logits; in training perhaps to more,
            the logits first.
        examples: what it learns from; their order is the places `loss_function` gets.
        evaluations: scored after every epoch. Under "holdout", the sentences the epoch is chosen
            by, as `choose` does.
        state: keeps what it takes to go on after the last finished epoch.
        report: gets each epoch's record as soon as it is there.
        part_tokens: for a decoder; on a CPU its batches pass as in `backward_apart`, on a GPU its
            steps are as in `GraphedStep`.
    """
    accelerator = Accelerator(cpu=process().device.type == "cpu")
    rank, world = accelerator.process_index, accelerator.num_processes
    prepared, optimizer = accelerator.prepare(model, adamw(model, settings))
    trainable = trainable_parameters(model)
    lengths = [len(t) for t in examples.tokens]
    labels = np.asarray(examples.labels)
    steps = epochs * math.ceil(len(lengths) / settings.batch_size)
    trained = Trained([], {})
    if settings.resume:
        trained = state.load(trainable, optimizer)
    step = steps // epochs * len(trained.records)

    alone = accelerator.device.type if world == 1 else None
    graphed = None
    if part_tokens and alone == "cuda":
        graphed = GraphedStep(model, loss_function, optimizer, settings.clip, max(lengths))

    with progress_bar(epochs * len(lengths)) as show:
        for epoch in range(len(trained.records) + 1, epochs + 1):
            seed_epoch(seed, epoch)
            started, done = time.perf_counter(), 0
            outputs: list[tuple[Tensor, Tensor]] = []  # places, logits
            model.train()
            for batch_index in length_batches(
                lengths, settings.batch_size, seed, epoch, rank, world
            ):
                set_lr(optimizer, settings, step, steps)
                if part_tokens and alone == "cpu":
                    passed = backward_apart(
                        model, examples.tokens, batch_index, loss_function, part_tokens
                    )
                    update(optimizer, trainable.values(), settings.clip)
                elif graphed:
                    batch = collate(examples.tokens, batch_index.tolist())
                    passed = [(batch.index, graphed(batch))]
                else:
                    batch = collate(examples.tokens, batch_index.tolist()).to(accelerator.device)
                    output = prepared(batch.input_ids, batch.lengths)
                    accelerator.backward(loss_function(output, batch.index))
                    logits = output[0] if isinstance(output, tuple) else output
                    passed = [(batch.index, logits.detach())]
                    update(optimizer, trainable.values(), settings.clip)
                step += 1
                outputs += passed
                done = min(done + len(batch_index) * world, len(lengths))
                show((epoch - 1) * len(lengths) + done, f"epoch {epoch}/{epochs}")
            # Scored on the logits as they came, while the weights moved: no second pass.
            outputs = [(index, logits.cpu()) for index, logits in outputs]
            seconds = time.perf_counter() - started  # now that a GPU has finished, too
            if world > 1:
                outputs = gather_object(outputs)
            index, logits = (torch.cat(part) for part in zip(*outputs, strict=True))
            truth = labels[index.numpy()]
            scored = truth != UNLABELLED
            record: Record = {
                "epoch": epoch,
                "train": score(logits.numpy()[scored], truth[scored].tolist()),
            }
            for name, held in evaluations.items():
                logits = predict_logits(model, held.tokens)
                record[name] = score(logits.numpy(), held.labels)
                if name == "holdout":
                    counts = confusion_counts(
                        held.labels, logits.argmax(1).tolist(), logits.shape[1]
                    )
                    record[name]["mcc_se"] = mcc_standard_error(counts)
            record["seconds"] = round(seconds, 2)
            record["sentences_per_second"] = round(len(lengths) / seconds, 1)
            records, tensors = [*trained.records, record], trained.tensors
            if choose(records) == epoch:
                tensors = {n: p.detach().cpu().clone() for n, p in trainable.items()}
            trained = Trained(records, tensors)
            if accelerator.is_main_process:
                state.save(trained, trainable, optimizer)
                report(record)
            accelerator.wait_for_everyone()
    return trained

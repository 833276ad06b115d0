"""The training loop of classifiers, for LoRA, distil and rnn alike."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from potstill.data.batching import UNLABELLED, LabelledDataset
from potstill.metrics import confusion_counts, mcc_standard_error, score
from potstill.ops.parameters import trainable_parameters
from potstill.progress import Progress, no_progress
from potstill.settings import TrainSettings
from potstill.training.checkpoint import Checkpoint, EpochMetrics, TrainResult, choose_epoch
from potstill.training.distributed import predict_logits, process
from potstill.training.epoch import run_epoch
from potstill.training.losses import LossFunction
from potstill.training.optim import adamw
from potstill.training.resident import Resident, ResidentStep, layered_classifier
from potstill.training.steps import BatchLogits, GraphedStep, MicrobatchStep, PlainStep, Step


def train(
    model: nn.Module,
    dataset: Any,
    loss_function: LossFunction,
    evaluations: dict[str, LabelledDataset],
    *,
    settings: TrainSettings,
    epochs: int,
    seed: int,
    checkpoint: Checkpoint,
    report: Callable[[EpochMetrics], None],
    microbatch_tokens: int | None = None,
    progress: Progress = no_progress,
) -> TrainResult:
    """Train the parameters of `model` that require gradients.

    Args:
        model: Maps (B, L) tokens and (B,) lengths to (B, classes) logits; in training perhaps to
            more, the logits first.
        dataset: A `LabelledDataset`, or what has its attributes or those of `Resident`; sentences
            that are UNLABELLED are learnt from, but not scored.
        loss_function: Maps the model's output and a batch of `dataset` to the mean loss.
        evaluations: Are scored after every epoch. Under "holdout", the sentences that the epoch is
            chosen by, as in `choose_epoch`.
        checkpoint: Keeps what it takes to continue after the last finished epoch.
        report: Is called with the metrics of each epoch as soon as they are there.
        microbatch_tokens: For a decoder; on a CPU its batches are cut as in `MicrobatchStep`, on a
            GPU its steps are as in `GraphedStep`.
    """
    accelerator = Accelerator(cpu=process().device.type == "cpu")
    prepared, optimizer = accelerator.prepare(model, adamw(model, settings))
    trainable = trainable_parameters(model)
    result = TrainResult([], {})
    if settings.resume:
        result = checkpoint.load(trainable, optimizer)
    parameters = list(trainable.values())
    step: Step
    # The faster steps are for one process alone.
    device = accelerator.device.type if accelerator.num_processes == 1 else None
    if microbatch_tokens and device == "cpu":
        step = MicrobatchStep(
            model,
            loss_function,
            optimizer,
            settings.clip,
            parameters=parameters,
            microbatch_tokens=microbatch_tokens,
        )
    elif isinstance(dataset, Resident):
        step = ResidentStep(
            layered_classifier(model),
            loss_function,
            optimizer,
            settings.clip,
            parameters=parameters,
            batch_size=settings.batch_size,
        )
    elif microbatch_tokens and device == "cuda":
        longest = int(dataset.lengths.max())
        step = GraphedStep(model, loss_function, optimizer, settings.clip, longest=longest)
    else:
        step = PlainStep(
            prepared,
            loss_function,
            optimizer,
            settings.clip,
            parameters=parameters,
            accelerator=accelerator,
        )
    with progress(epochs * len(dataset)) as show:
        for epoch in range(len(result.history) + 1, epochs + 1):
            model.train()
            started = time.perf_counter()
            batches = run_epoch(
                step,
                dataset,
                optimizer,
                settings,
                epoch=epoch,
                epochs=epochs,
                seed=seed,
                show=show,
                description=f"epoch {epoch}/{epochs}",
                rank=accelerator.process_index,
                world_size=accelerator.num_processes,
                one_length=isinstance(dataset, Resident),
            )
            outputs = _on_the_processor([output for batch in batches for output in batch])
            seconds = time.perf_counter() - started  # now that a GPU has finished, too
            metrics: EpochMetrics = {"epoch": epoch, "train": _train_scores(outputs, dataset)}
            metrics |= {name: _evaluate(model, name, held) for name, held in evaluations.items()}
            metrics["seconds"] = round(seconds, 2)
            metrics["sentences_per_second"] = round(len(dataset) / seconds, 1)
            history, tensors = [*result.history, metrics], result.tensors
            if choose_epoch(history) == epoch:
                tensors = {n: p.detach().cpu().clone() for n, p in trainable.items()}
            result = TrainResult(history, tensors)
            if accelerator.is_main_process:
                checkpoint.save(result, trainable, optimizer)
                report(metrics)
            accelerator.wait_for_everyone()
    return result


def _on_the_processor(outputs: list[BatchLogits]) -> list[BatchLogits]:
    """Bring logits from a GPU in one copy; of thousands of small ones each would be waited for."""
    if not outputs:  # of all the labelled sentences, this process had none
        return []
    indices, logits = (torch.cat(part) for part in zip(*outputs, strict=True))
    return [(indices, logits.cpu())]


def _train_scores(outputs: list[BatchLogits], dataset: Any) -> dict[str, float]:
    """Score the logits as they came, while the weights moved: no second pass is needed."""
    if process().num_processes > 1:
        outputs = gather_object(outputs)
    indices, logits = (torch.cat(part) for part in zip(*outputs, strict=True))
    labels = np.asarray(dataset.labels)[indices.numpy()]
    labelled = labels != UNLABELLED
    return score(logits.numpy()[labelled], labels[labelled].tolist())


def _evaluate(model: nn.Module, name: str, dataset: LabelledDataset) -> dict[str, float]:
    logits = predict_logits(model, dataset.tokens)
    scores = score(logits.numpy(), list(dataset.labels))
    if name == "holdout":
        predicted = logits.argmax(1).tolist()
        counts = confusion_counts(list(dataset.labels), predicted, logits.shape[1])
        scores["mcc_se"] = mcc_standard_error(counts)
    return scores

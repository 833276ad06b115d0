"""The training loop of classifiers, for LoRA, distil and rnn alike."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from potstill.data.batching import UNLABELLED, LabelledDataset
from potstill.metrics import confusion_counts, mcc_standard_error, score
from potstill.ops.parameters import trainable_parameters
from potstill.progress import Progress, no_progress
from potstill.settings import ResolvedTrainSettings
from potstill.training.checkpoint import Checkpoint, EpochProgress
from potstill.training.distributed import predict_logits, process
from potstill.training.epoch import run_epoch
from potstill.training.finite import DivergedError
from potstill.training.history import EpochMetrics, TrainResult, choose_epoch
from potstill.training.losses import LossFunction
from potstill.training.optim import adamw, current_lr
from potstill.training.resident import Resident, ResidentStep, layered_classifier
from potstill.training.steps import GraphedStep, MicrobatchStep, PlainStep, Step
from potstill.training.time_limit import TimeLimit


def train(
    model: nn.Module,
    dataset: Any,
    loss_function: LossFunction,
    evaluations: dict[str, LabelledDataset],
    *,
    settings: ResolvedTrainSettings,
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
        checkpoint: Keeps what it takes to continue; where it has a state, training goes on from it.
        report: Is called with the metrics of each epoch as soon as they are saved.
        microbatch_tokens: For a decoder; on a CPU its batches are cut as in `MicrobatchStep`, on a
            GPU its steps are as in `GraphedStep`.

    Raises:
        DivergedError: The loss or a gradient is not finite.
        UserError: The checkpoint is damaged, or of other settings.
    """
    accelerator = Accelerator(cpu=process().device.type == "cpu")
    prepared, optimizer = accelerator.prepare(model, adamw(model, settings))
    trainable = trainable_parameters(model)
    result, begun = TrainResult([], {}), EpochProgress()
    if checkpoint.exists():
        result, begun = checkpoint.load(trainable, optimizer)
        if not accelerator.is_main_process:  # the first has the results of all
            begun = replace(begun, results=[])
    accelerator.wait_for_everyone()  # all have looked before any writes
    limit = TimeLimit(settings.minutes, epochs, result.history)
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
        while len(result.history) < limit.epochs:
            epoch = len(result.history) + 1
            model.train()
            progressed = run_epoch(
                step,
                dataset,
                optimizer,
                settings,
                epoch=epoch,
                epochs=epochs,
                seed=seed,
                show=show,
                description=f"epoch {epoch}/{limit.epochs}",
                one_length=isinstance(dataset, Resident),
                cuts=limit.cuts,
                begun=begun,
                after_step=partial(_after_step, checkpoint, result, trainable, optimizer),
            )
            begun = EpochProgress()
            seconds = progressed.seconds
            metrics: EpochMetrics = {"epoch": epoch, "train": _train_scores(progressed, dataset)}
            metrics |= {name: _evaluate(model, name, held) for name, held in evaluations.items()}
            metrics["seconds"] = round(seconds, 2)
            metrics["sentences_per_second"] = round(len(dataset) / seconds, 1)
            metrics |= limit.look(epoch)
            history, tensors = [*result.history, metrics], result.tensors
            if choose_epoch(history) == epoch:
                tensors = {n: p.detach().cpu().clone() for n, p in trainable.items()}
            result = TrainResult(history, tensors)
            losses = [scores["loss"] for scores in metrics.values() if isinstance(scores, dict)]
            if not np.isfinite(losses).all():
                raise DivergedError(epoch, progressed.steps, current_lr(optimizer))
            checkpoint.save(result, trainable, optimizer)
            if accelerator.is_main_process:
                report(metrics)
            accelerator.wait_for_everyone()
            checkpoint.end_if_asked()
    return result


def _after_step(
    checkpoint: Checkpoint,
    result: TrainResult,
    trainable: dict[str, Tensor],
    optimizer: Any,
    progress: EpochProgress,
) -> None:
    checkpoint.after_step(result, trainable, optimizer, progress, gather=True)


def _train_scores(progress: EpochProgress, dataset: Any) -> dict[str, float]:
    """Score the logits as they came, while the weights moved: no second pass is needed."""
    indices, logits = progress.gathered().columns()
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

"""The steps that distil and rnn share: a student built, pretrained, and its bias matched."""

import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from potstill.calibration import prevalence_bias
from potstill.data.batching import LabelledDataset
from potstill.distillation.lm_targets import LMDataset
from potstill.distillation.pretrain import pretrain
from potstill.distillation.streamed import StreamedText
from potstill.metrics import score
from potstill.progress import Progress, no_progress
from potstill.recipes._decisions import Adjustment, no_bias, temperature_on_holdout
from potstill.recipes._language import is_foreign_to_base
from potstill.recipes._run import Run, Task, write_run
from potstill.recipes._unfinished import saving_state
from potstill.recipes.console import log_truncated
from potstill.recipes.tables import shortened
from potstill.settings import (
    DecisionSettings,
    PretrainSettings,
    ResolvedTrainSettings,
    StudentSettings,
    TrainSettings,
)
from potstill.student.base import Base
from potstill.student.io import save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import encode, train_tokenizer, truncated
from potstill.training.distributed import predict_logits, process
from potstill.training.history import TrainResult
from potstill.training.precision import resolve_precision

EPOCHS, SEEN = 20, 400_000  # passes over a few sentences; sentences that many are passed over
SMALL = 20_000  # sentences; so few are learnt in smaller batches
LARGE = 200_000  # from so many on, a GPU takes batches that fill it
PRETRAIN_EPOCHS = 6
PRETRAIN_EPOCHS_WITH_SET = 3

logger = logging.getLogger(__name__)


def resolve_training(
    train: TrainSettings,
    pretraining: PretrainSettings,
    *,
    sentences: int,
    transfer_set: bool,
    init: bool,
) -> tuple[ResolvedTrainSettings, PretrainSettings]:
    """Return the settings with what is left open chosen by the data.

    The learning rate goes with the square root of the batch size (Malladi et al. 2022, *On the SDEs
    and Scaling Rules for Adaptive Gradient Algorithms*, section 4).

    Args:
        sentences: How many the student learns from.
        transfer_set: Whether some of them are a transfer set's.
        init: Whether it starts from pretrained weights.
    """
    small = sentences < SMALL
    on_gpu = process().device.type == "cuda"
    default = 32 if small else 1024 if on_gpu and sentences >= LARGE else 64
    batch_size = train.batch_size or default
    lr = 2e-3 * math.sqrt(batch_size / 32) if small else 1e-3 * math.sqrt(batch_size / 64)
    epochs = min(EPOCHS, max(4, round(SEEN / max(sentences, 1))))
    plan = train.with_defaults(epochs=epochs, batch_size=batch_size, lr=round(lr, 6))
    if pretraining.pretrain_epochs is None:
        epochs = PRETRAIN_EPOCHS_WITH_SET if transfer_set else PRETRAIN_EPOCHS
        pretraining = replace(pretraining, pretrain_epochs=0 if init else epochs)
    return plan, pretraining


def choose_base(
    base: Base | None, settings: StudentSettings, sentences: Sequence[str]
) -> tuple[Base | None, str]:
    """Return what a student starts from, and what to say of it; that is "" where it was asked for
    random weights.

    Args:
        base: What `load_init` returns for `settings`. By default it serves where it has words for
            the text.
        sentences: The training sentences.
    """
    if base and settings.init is None and is_foreign_to_base(base.tokenizer, sentences):
        return None, "none, as DistilRNN-base has no words for this text"
    if base:
        return base, f"{base.folder}, weights {base.sha256[:12]}"
    if settings.init is None:
        return None, "none, as DistilRNN-base has a network of another shape"
    return None, ""


def make_tokenizer(base: Base | None, sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    """Return the tokenizer of `base`, or else one trained on `sentences`."""
    return base.tokenizer if base else train_tokenizer(sentences, vocab_size)


def encode_splits(tokenizer: Tokenizer, task: Task, max_length: int) -> dict[str, LabelledDataset]:
    """Return every split of a task in the student's tokens."""
    datasets = {}
    for name, split in task.splits().items():
        log_truncated(sum(truncated(tokenizer, split.sentences, max_length)), max_length, name)
        datasets[name] = LabelledDataset(
            encode(tokenizer, split.sentences, max_length), split.labels
        )
    return datasets


def build_student(
    settings: StudentSettings,
    tokenizer: Tokenizer,
    task: Task,
    *,
    seed: int,
    precision: str,
    base: Base | None,
    word_head: bool = False,
) -> DistilRNN:
    """Return a student with random weights or, but for the layers that score the classes, those of
    `base`."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "classes": len(task.corpus.labels)}
    config = StudentConfig(**settings.model_kwargs() | sizes, word_head=word_head)
    model = DistilRNN(config, product_dtype=resolve_precision(precision))
    if base:
        model.load_state_dict(base.weights, strict=False)
    return model


def pretrain_student(
    run: Run,
    model: DistilRNN,
    text: LMDataset | StreamedText,
    settings: PretrainSettings,
    *,
    progress: Progress = no_progress,
) -> None:
    """Train `model` as a language model, unless that is turned off or done."""
    epochs = settings.pretrain_epochs
    done = run.checkpoint().exists()  # a state of what comes after
    process().wait_for_everyone()  # all have looked before any writes
    if not epochs or done:
        return
    started = time.perf_counter()
    checkpoint = run.checkpoint("language_model")
    with saving_state(checkpoint, "`pretrain_lr`"):
        loss = pretrain(
            model,
            text,
            replace(run.settings, lr=settings.pretrain_lr),
            epochs=epochs,
            seed=run.config["SR"],
            random_weights="init" not in run.config,
            checkpoint=checkpoint,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    soft = ""
    fraction = text.soft_fraction()
    if fraction is not None:
        soft = f"; soft targets for {fraction:.0%} of the tokens"
    logger.info(
        f"pretrained as a language model: {epochs} epoch{'s' * (epochs != 1)} over "
        f"{len(text)} sentences, {seconds:.0f} s, {loss:.3f} nats per token{soft}"
    )


def write_student(
    run: Run,
    model: DistilRNN,
    tokenizer: Tokenizer,
    trained: TrainResult,
    *,
    labelled: LabelledDataset,
    evaluations: dict[str, LabelledDataset],
    match: bool,
    decisions: DecisionSettings,
) -> None:
    """Adjust a trained student's last layers, and write the run.

    Args:
        labelled: Train.
        evaluations: The other splits.
        match: Whether the biases are to match the class frequencies of train.
    """
    classes = run.config["labels"]
    adjustment = _adjust(model, labelled, evaluations, classes, match=match, decisions=decisions)
    save = partial(save_student, model, tokenizer)
    write_run(
        run, model, evaluations, trained, save=save, decisions=decisions, adjustment=adjustment
    )


@torch.no_grad()
def _adjust(
    model: DistilRNN,
    labelled: LabelledDataset,
    evaluations: dict[str, LabelledDataset],
    classes: Sequence[str],
    *,
    match: bool,
    decisions: DecisionSettings,
) -> Adjustment:
    """Adjust the biases to the class frequencies of train, if they are to `match`, and then all
    weights to the temperature that fits the held-out sentences."""
    bias = no_bias(len(classes))
    if match and decisions.class_weight == "none":
        bias = match_prevalence(model, labelled, classes, held_out=evaluations.get("holdout"))
    temperature = temperature_on_holdout(decisions, model, evaluations)
    for layer in filter(None, (model.score, model.word_score)):
        layer.weight.div_(temperature)
        layer.bias.div_(temperature)
    return Adjustment(bias, temperature, in_weights=True)


@torch.no_grad()
def match_prevalence(
    model: DistilRNN,
    labelled: LabelledDataset,
    classes: Sequence[str],
    *,
    held_out: LabelledDataset | None = None,
) -> Tensor:
    """Shift `model.score.bias` so that predicted class frequencies on `labelled` match the labels;
    return the (classes,) shift, zeros where sentences that are `held_out` are then told apart worse
    (by their MCC).

    A student that is unsure predicts the frequent class, so that it predicts rare ones too seldom.
    One that knows its training sentences by heart is sure of all of them: a shift that moves some
    is too large for any other sentence.
    """
    logits = predict_logits(model, labelled.tokens).numpy()
    bias = torch.from_numpy(prevalence_bias(logits, list(labelled.labels))).float()
    if held_out is not None and len(held_out):
        others = predict_logits(model, held_out.tokens).numpy()
        before, after = (
            score(each, list(held_out.labels))["mcc"] for each in (others, others + bias.numpy())
        )
        if after < before:
            logger.info(
                "predicted = true frequency on train: left out, as the MCC on held-out sentences "
                f"would fall from {before:.4f} to {after:.4f}"
            )
            return no_bias(len(classes))
    model.score.bias.add_(bias.to(model.score.bias.device))
    true, predicted = (
        np.bincount(answers, minlength=len(classes)) / len(logits)
        for answers in (labelled.labels, logits.argmax(1))
    )
    frequencies = [
        f"{name} {100 * now:.1f} % (was {100 * before:.1f} %, bias {shift:+.2f})"
        for name, now, before, shift in zip(classes, true, predicted, bias.tolist(), strict=True)
        if shift
    ]
    logger.info(
        "predicted = true frequency on train: "
        f"{shortened(frequencies) or 'all classes, without a bias'}"
    )
    return bias

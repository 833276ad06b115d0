"""How fast this machine is, measured with a few steps of the real models."""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from potstill.data.batching import LabelledDataset
from potstill.data.splits import Split
from potstill.decoder import classifier
from potstill.decoder.base import max_positions
from potstill.decoder.hub import BaseModel
from potstill.distillation.dataset import labelled_dataset
from potstill.distillation.losses import distillation_loss
from potstill.distillation.resident import on_device
from potstill.recipes._student import choose_base
from potstill.settings import DistilSettings, LoRASettings, ResolvedTrainSettings, StudentSettings
from potstill.student import tokenizer as student_tokens
from potstill.student.base import load_init
from potstill.student.model import DistilRNN, StudentConfig
from potstill.training.checkpoint import Checkpoint
from potstill.training.distributed import predict_logits, process
from potstill.training.loop import train
from potstill.training.losses import LossFunction, classification_loss
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision

# Sentences that the speed is measured on: on a slow machine few. More fill the batches, and the
# caches and threads are warm by then.
TUNED, LABELLED, LEARNT = (16, 64), (64, 256), (64, 256, 1024)
MEASURING = 0.01  # of the time that is left, that a pass over more may take
PASSES = 2  # over training sentences, of which the last counts
DECODER_BATCH, STUDENT_BATCH = 32, 64


@dataclass(frozen=True)
class Rates:
    """How fast this machine is.

    Args:
        tuning: Sentences a second that LoRA learns from.
        labelling: Sentences a second that the decoder scores.
        student: Sentences a second that the student learns from, and from a teacher's answers.
        student_alone: The same without a teacher.
        loading: Seconds that it takes to load the decoder.
    """

    tuning: float
    labelling: float
    student: float
    student_alone: float
    loading: float

    def slower(self, factor: float) -> "Rates":
        """Return the rates of a machine that takes `factor` times as long."""
        return Rates(
            self.tuning / factor,
            self.labelling / factor,
            self.student / factor,
            self.student_alone / factor,
            self.loading * factor,
        )


def measure(
    base_model: BaseModel, split: Split, classes: int, *, max_length: int, patience: float
) -> Rates:
    """Measure this machine with a few steps of the real models on some of `split`.

    Args:
        base_model: The decoder.
        split: The training sentences.
        classes: The number of classes.
        max_length: Maximum number of tokens of a sentence.
        patience: Seconds that a pass may take. The longer, the better: the speed of a machine that
            others share goes up and down.
    """
    started = time.perf_counter()
    base, tokenizer = base_model.base(), base_model.tokenizer()
    rank = LoRASettings().LoRA_rank
    decoder = classifier.build_lora_classifier(base, classes, rank=rank, alpha=LoRASettings().alpha)
    if resolve_precision("auto") == torch.bfloat16:
        cast_frozen_to_bf16(decoder.base)
    decoder.to(process().device)
    loading = time.perf_counter() - started

    limit = min(max_length, max_positions(base, default=max_length))

    def encode(part: Split) -> list[list[int]]:
        return classifier.encode(tokenizer, part.sentences, limit, tokenizer.bos_token_id)[0]

    def tuning(part: Split) -> float:
        return _training_rate(
            decoder,
            LabelledDataset(encode(part), part.labels),
            classification_loss,
            batch_size=DECODER_BATCH,
            microbatch_tokens=classifier.MICROBATCH_TOKENS,
        )

    def labelling(part: Split) -> float:
        tokens = encode(part)
        started = time.perf_counter()
        predict_logits(decoder, tokens)
        return len(part) / (time.perf_counter() - started)

    return Rates(
        _rate(tuning, split, TUNED, batch_size=DECODER_BATCH, patience=patience),
        _rate(labelling, split, LABELLED, batch_size=DECODER_BATCH, patience=patience),
        *_student_rates(split, classes, max_length, patience),
        loading,
    )


def rate_of_run(folder: Path) -> float:
    """Return the sentences a second that a finished run learnt from in its last epoch."""
    last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
    return float(json.loads(last)["sentences_per_second"])


def _student_rates(
    split: Split, classes: int, max_length: int, patience: float
) -> tuple[float, float]:
    """Return how fast the student learns from a teacher too, and from the labels alone."""
    some = batches_like(split, LEARNT[1], STUDENT_BATCH)[0].sentences
    base, _ = choose_base(load_init(StudentSettings()), StudentSettings(), split.sentences)
    tokenizer = base.tokenizer if base else student_tokens.train_tokenizer(some, 8000)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "classes": classes}

    def encode(part: Split) -> LabelledDataset:
        tokens = student_tokens.encode(tokenizer, part.sentences, max_length)
        return LabelledDataset(tokens, part.labels)

    def learning(data: Any, loss: LossFunction, *, word_head: bool) -> float:
        config = StudentConfig(**StudentSettings().model_kwargs() | sizes, word_head=word_head)
        model = DistilRNN(config, product_dtype=resolve_precision("auto"))
        model.to(process().device)
        return _training_rate(model, on_device(model, data), loss, batch_size=STUDENT_BATCH)

    def taught(part: Split) -> float:
        words = student_tokens.word_end_positions(tokenizer, part.sentences, max_length)
        dataset = labelled_dataset(
            tokenizer,
            part.sentences,
            encode(part),
            teacher_logits=torch.zeros(len(part), classes),
            word_logits=[np.zeros((len(ends), classes), np.float32) for ends in words],
            max_length=max_length,
        )
        loss = partial(distillation_loss, settings=DistilSettings())
        return learning(dataset, loss, word_head=True)

    def alone(part: Split) -> float:
        return learning(encode(part), classification_loss, word_head=False)

    return (
        _rate(taught, split, LEARNT, batch_size=STUDENT_BATCH, patience=patience),
        _rate(alone, split, LEARNT, batch_size=STUDENT_BATCH, patience=patience),
    )


def batches_like(split: Split, most: int, batch_size: int) -> tuple[Split, float]:
    """Return at most `most` sentences that make up batches as a run over all of `split` has them,
    and the length of such a run's batches over that of these.

    A batch has sentences of similar length and takes about as long as its longest. As many
    sentences drawn evenly would share batches with the few longest.
    """
    lengths = np.array([len(sentence) for sentence in split.sentences])
    order = np.argsort(lengths, kind="stable")
    size = min(batch_size, most, len(split))
    batches = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    costs = np.array([lengths[batch[-1]] for batch in batches])
    # Of each part of the batches, the one that is nearest to the part's mean.
    parts = np.array_split(np.arange(len(batches)), min(len(batches), most // size))
    chosen = [part[np.abs(costs[part] - costs[part].mean()).argmin()] for part in parts]
    sentences = split.take(np.concatenate([batches[i] for i in chosen]).tolist())
    return sentences, float(costs.mean() / costs[chosen].mean())


def _training_rate(
    model: nn.Module,
    dataset: Any,
    loss_function: LossFunction,
    *,
    batch_size: int,
    microbatch_tokens: int | None = None,
) -> float:
    """Return the sentences a second of the last of PASSES passes over `dataset`."""
    with tempfile.TemporaryDirectory() as folder:
        # Without the warm-up of the caches and threads, which a run pays for only once.
        result = train(
            model,
            dataset,
            loss_function,
            {},
            settings=ResolvedTrainSettings(epochs=PASSES, batch_size=batch_size, lr=1e-5),
            epochs=PASSES,
            seed=0,
            checkpoint=Checkpoint(Path(folder) / "state", {}),
            report=lambda metrics: None,
            microbatch_tokens=microbatch_tokens,
        )
    return float(result.history[-1]["sentences_per_second"])


def _rate(
    measure: Callable[[Split], float],
    split: Split,
    numbers: Sequence[int],
    *,
    batch_size: int,
    patience: float,
) -> float:
    """Return the sentences a second of a run over `split`, from the largest number of its sentences
    that takes no longer than `patience`, in seconds, or else the first."""
    part, longer = batches_like(split, numbers[0], batch_size)
    rate = measure(part)
    for number in numbers[1:]:
        if number / rate > patience:
            break
        part, longer = batches_like(split, number, batch_size)
        rate = measure(part)
    return rate / longer

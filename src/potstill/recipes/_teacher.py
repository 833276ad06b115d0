"""What distil asks of the teacher."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.distillation.logit_cache import LogitCache, label_sentences
from potstill.errors import UserError
from potstill.inference.decoder import DecoderClassifier
from potstill.metrics import evaluation
from potstill.progress import Progress
from potstill.recipes._run import Task

logger = logging.getLogger(__name__)


def check_labels(task: Task, teacher: DecoderClassifier) -> None:
    """Raise a `UserError` unless the teacher knows the labels of the task."""
    if task.corpus.labels != tuple(teacher.classes_):
        raise UserError(
            f"the teacher in {teacher.folder} knows {', '.join(teacher.classes_)}, "
            f"but {task.corpus.path} is labelled {', '.join(task.corpus.labels)}."
        )


def label_splits(
    teacher: DecoderClassifier, task: Task, words: bool, progress: Progress
) -> tuple[dict[str, Tensor], list[np.ndarray]]:
    """Return the teacher's (N, classes) logits of every split and, if `words`, for each sentence of
    train those after each of its words, (W, classes)."""
    cache = LogitCache(teacher.sha256, f"-{teacher.precision}")
    logits, word_logits, n_computed = {}, [], 0
    for name, split in task.splits().items():
        if name == "train" and words:
            word_cache = LogitCache(teacher.sha256, f"-words-{teacher.precision}")
            labelled, computed = label_sentences(
                split.sentences, word_cache, teacher.word_logits, progress=progress
            )
            rows = [flat.view(-1, len(teacher.classes_)) for flat in labelled]
            logits[name] = torch.stack([row[-1] for row in rows])
            word_logits = [row[:-1].numpy() for row in rows]
        else:
            labelled, computed = label_sentences(
                split.sentences, cache, teacher.logits, progress=progress
            )
            logits[name] = torch.stack(labelled)
        n_computed += computed
    logger.info(
        f"teacher logits: {n_computed} sentences computed, the others read from {cache.file.parent}"
    )
    return logits, word_logits


def describe_teacher(
    teacher: DecoderClassifier, task: Task, logits: dict[str, Tensor]
) -> dict[str, Any]:
    """Return what a run records of the teacher; `logits` are its own of each split."""
    scores = {
        name: evaluation(
            logits[name].numpy() / teacher.temperature, split.labels, offsets=teacher.offsets
        )
        for name, split in task.scored.items()
    }
    return {
        "path": str(teacher.folder),
        "sha256": teacher.sha256,
        "title": teacher.title,
        "parameters": teacher.n_parameters,
        "scores": scores,
        "decoder": {k: v for k, v in teacher.config.get("decoder", {}).items() if k != "folder"},
    }

"""The command distil: a teacher, its sentences and a transfer set in, a student out."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from potstill.data.batching import UNLABELLED, LabelledDataset
from potstill.decoder.classifier import parameter_counts
from potstill.distillation.dataset import DistillationDataset
from potstill.distillation.lm_targets import soft_targets
from potstill.distillation.logit_cache import LogitCache, label_sentences
from potstill.distillation.losses import distillation_loss
from potstill.distillation.word_targets import word_targets
from potstill.errors import UserError
from potstill.files import ADAPTER_CONFIG, read_json
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.teacher import load_teacher
from potstill.metrics import evaluation
from potstill.recipes._comparison import print_comparison
from potstill.recipes._corpus import trained_on
from potstill.recipes._run import (
    Run,
    Task,
    check_target,
    describe_run,
    fit,
    read_task,
    write_run,
)
from potstill.recipes._student import (
    build_student,
    encode_splits,
    match_prevalence,
    network,
    pretrain_student,
    resolve_epochs,
)
from potstill.recipes.console import format_count, log_choice, progress_bar
from potstill.settings import (
    DataSettings,
    DistilSettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)
from potstill.student.heads import WordHead
from potstill.student.io import save_student
from potstill.student.tokenizer import encode, train_tokenizer, word_end_positions
from potstill.transfer.dataset import (
    TransferSet,
    check_teacher,
    check_top_k,
    check_words,
    read_transfer_set,
)
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import read_vocabulary

logger = logging.getLogger(__name__)


def distil(
    teacher_path: Path,
    *,
    seed: int,
    distillation: DistilSettings,
    student: StudentSettings,
    pretraining: PretrainSettings,
    data: DataSettings,
    train: TrainSettings,
    gpt_variant: str | None,
    transfer_path: Path | None,
    folder: Path,
    plots_path: Path,
) -> None:
    """Distil a tuned decoder and write the student to `folder`; see `commands.distil`."""
    check_target(folder, "student_path", plots_path, train.resume)
    transfer_set = read_transfer_set(transfer_path) if transfer_path else None
    teacher = load_teacher(teacher_path, gpt_variant=gpt_variant, precision=train.precision)
    log_choice("teacher", f"{teacher.title} in {teacher_path}")
    data, reason = _resolve_data(data, teacher)
    task = read_task(data, seed, reason)
    _check_labels(task, teacher, teacher_path)
    soft_lm = pretraining.pretrain_epochs != 0 and pretraining.pretrain_targets == "soft"
    words = distillation.word_loss_weight > 0
    if transfer_set and transfer_path:
        check_teacher(transfer_set, transfer_path, teacher.sha256)
        if soft_lm:
            check_top_k(transfer_set, transfer_path)
        if words:
            check_words(transfer_set, transfer_path)
        transfer_set = _without_scored(transfer_set, transfer_path, task)
    logits, word_logits = _label(teacher, task, words)
    train, pretraining = resolve_epochs(train, pretraining, transfer_set is not None)

    sentences = task.train.sentences + (transfer_set.sentences if transfer_set else [])
    tokenizer = train_tokenizer(sentences, student.vocab_size)
    max_length = data.max_length
    evaluations = encode_splits(tokenizer, task, max_length)
    labelled = evaluations.pop("train")
    dataset = _labelled_dataset(tokenizer, task, labelled, logits["train"], word_logits, max_length)
    if transfer_set and transfer_path:
        vocabulary = []
        if soft_lm and any(transfer_set.top_k):
            vocabulary = read_vocabulary(transfer_path)
        dataset = dataset.concat(
            _transfer_dataset(tokenizer, transfer_set, vocabulary, words, max_length)
        )
    model = build_student(student, tokenizer, task, seed=seed, precision=train.precision)
    learner = WordHead(model) if words else model
    total, _ = parameter_counts(model)
    ratio = f"1/{teacher.n_parameters / total:.0f} of {teacher.title}"
    logger.info(f"student: DistilRNN, {format_count(total)} parameters; {ratio}")

    settings = [distillation, student, pretraining, data, train]
    config = describe_run("distil", seed, task.corpus, settings)
    config["teacher"] = _describe_teacher(teacher, teacher_path, task, logits)
    if transfer_set and transfer_path:
        config["transfer_set"] = _describe_transfer_set(transfer_set, transfer_path)
    config["student"] = network(student, tokenizer, task)
    config["parameters"] = {"total": total, "trainable": total}
    rank = read_json(teacher_path / ADAPTER_CONFIG)["r"]
    title = f"DistilRNN from {teacher.title} rank {rank}, on {task.corpus.name}, SR {seed}"
    run = Run(task, config, train, folder, plots_path / "distilrnn_training_plot.png", title)

    run = pretrain_student(run, model, dataset.text(), pretraining)
    trained = fit(
        run, learner, dataset, evaluations, partial(distillation_loss, settings=distillation)
    )
    bias = match_prevalence(model, labelled, config["labels"]) if student.match_prevalence else None
    save = partial(save_student, model, tokenizer)
    write_run(run, learner, evaluations, trained, save=save, bias=bias)
    print_comparison(folder)
    logger.info(f"student: {run.folder}\nplot: {run.plot}")


def _resolve_data(data: DataSettings, teacher: DecoderClassifier) -> tuple[DataSettings, str]:
    """Return the settings with the teacher's own data in place of "auto", and why."""
    if data.data != "auto" or "data" not in teacher.config:
        return data, ""
    columns = {k: teacher.config["settings"][k] for k in ("text_column", "label_column")}
    return replace(data, data=trained_on(teacher), **columns), "what the teacher was tuned on"


def _check_labels(task: Task, teacher: DecoderClassifier, teacher_path: Path) -> None:
    if task.corpus.labels != tuple(teacher.classes_):
        raise UserError(
            f"the teacher in {teacher_path} knows {', '.join(teacher.classes_)}, "
            f"but {task.corpus.path} is labelled {', '.join(task.corpus.labels)}."
        )


def _without_scored(transfer_set: TransferSet, folder: Path, task: Task) -> TransferSet:
    """Leave out the sentences that are scored or held out, or were made of one of these."""
    kept = transfer_set.without([s for split in task.scored.values() for s in split.sentences])
    left_out = len(transfer_set.sentences) - len(kept.sentences)
    why = (
        f"; {left_out} more are left out, edits of held-out or scored sentences" if left_out else ""
    )
    logger.info(f"transfer set: {len(kept.sentences)} sentences from {folder}{why}")
    return kept


def _label(
    teacher: DecoderClassifier, task: Task, words: bool
) -> tuple[dict[str, Tensor], list[np.ndarray]]:
    """Return the teacher's (N, classes) logits of every split and, if `words`, for each sentence of
    train those after each of its words, (W, classes)."""
    cache = LogitCache(teacher.sha256)
    logits, word_logits, n_computed = {}, [], 0
    for name, split in task.splits().items():
        if name == "train" and words:
            word_cache = LogitCache(teacher.sha256, "-words")
            labelled, computed = label_sentences(
                split.sentences, word_cache, teacher.word_logits, progress=progress_bar
            )
            rows = [flat.view(-1, len(teacher.classes_)) for flat in labelled]
            logits[name] = torch.stack([row[-1] for row in rows])
            word_logits = [row[:-1].numpy() for row in rows]
        else:
            labelled, computed = label_sentences(
                split.sentences, cache, teacher.logits, progress=progress_bar
            )
            logits[name] = torch.stack(labelled)
        n_computed += computed
    logger.info(
        f"teacher logits: {n_computed} sentences computed, the others read from {cache.file.parent}"
    )
    return logits, word_logits


def _labelled_dataset(
    tokenizer: Tokenizer,
    task: Task,
    labelled: LabelledDataset,
    logits: Tensor,
    word_logits: list[np.ndarray],
    max_length: int,
) -> DistillationDataset:
    """Return the labelled sentences with the teacher's logits."""
    targets = None
    if word_logits:
        positions = word_end_positions(tokenizer, task.train.sentences, max_length)
        targets = word_targets(positions, word_logits)
    return DistillationDataset(
        labelled.tokens,
        labelled.labels,
        is_text=[True] * len(labelled),
        teacher_logits=logits,
        word_targets=targets,
    )


def _transfer_dataset(
    tokenizer: Tokenizer,
    transfer_set: TransferSet,
    vocabulary: list[str],
    words: bool,
    max_length: int,
) -> DistillationDataset:
    """Return the sentences of a transfer set with the teacher's logits and, where there is the
    decoder's `vocabulary`, its probabilities of the next tokens."""
    sentences = transfer_set.sentences
    tokens = encode(tokenizer, sentences, max_length)
    targets = lm_targets = None
    if words:
        positions = word_end_positions(tokenizer, sentences, max_length)
        targets = word_targets(positions, transfer_set.word_logits)
    if vocabulary:
        lm_targets = soft_targets(tokenizer, vocabulary, sentences, transfer_set.top_k, tokens)
    return DistillationDataset(
        tokens,
        [UNLABELLED] * len(tokens),
        # Edits are mostly not what a language model should learn to write.
        is_text=[origin.kind is not SourceKind.EDITED for origin in transfer_set.origins],
        teacher_logits=torch.from_numpy(transfer_set.logits),
        word_targets=targets,
        lm_targets=lm_targets,
    )


def _describe_teacher(
    teacher: DecoderClassifier, path: Path, task: Task, logits: dict[str, Tensor]
) -> dict[str, Any]:
    scores = {n: evaluation(logits[n].numpy(), s.labels) for n, s in task.scored.items()}
    return {
        "path": str(path),
        "sha256": teacher.sha256,
        "title": teacher.title,
        "parameters": teacher.n_parameters,
        "scores": scores,
    }


def _describe_transfer_set(transfer_set: TransferSet, path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "sentences": transfer_set.kinds(),
        "sha256": transfer_set.sha256(),
    }

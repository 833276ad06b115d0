"""The commands distil and rnn: a student with a teacher, and its control without."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from potstill import UserError, models, runs
from potstill.checkpoint import ADAPTER_CONFIG, read_json
from potstill.distillation import KeptLogits, distillation_loss, label_sentences, soft_losses
from potstill.metrics import evaluation
from potstill.reporting import say
from potstill.settings import (
    DataSettings,
    DistilSettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)
from potstill.student_training import Aim, train_student
from potstill.training import UNLABELLED
from potstill.transfer import (
    check_next_tokens,
    check_teacher,
    check_words,
    read_transfer_set,
    read_vocabulary,
)


def distil(
    SR: int,
    distillation: DistilSettings,
    shape: StudentSettings,
    pretraining: PretrainSettings,
    data: DataSettings,
    settings: TrainSettings,
    teacher_path: Path,
    gpt_variant: str | None,
    transfer_set: Path | None,
    folder: Path,
    plots_path: Path,
) -> None:
    """Distils a tuned decoder and writes the student to `folder`; see `commands.distil`."""
    runs.check_target(folder, "--student_path", plots_path, settings.resume)
    extra = read_transfer_set(transfer_set) if transfer_set else None
    teacher = models.load_teacher(teacher_path, settings.precision, gpt_variant)
    runs.say_choice("teacher", f"{teacher.title} in {teacher_path}")
    reason = ""
    if data.data == "auto" and "data" in teacher.config:
        columns = {k: teacher.config["settings"][k] for k in ("text_column", "label_column")}
        data = replace(data, data=models.trained_on(teacher), **columns)
        reason = "what the teacher was tuned on"
    task = runs.read_task(data, SR, reason)
    if task.corpus.labels != teacher.labels:
        raise UserError(
            f"the teacher in {teacher_path} knows {', '.join(teacher.labels)}, "
            f"but {task.corpus.path} is labelled {', '.join(task.corpus.labels)}."
        )
    vocabulary: list[str] = []
    if extra and transfer_set:
        check_teacher(extra, transfer_set, teacher.sha256)
        if pretraining.pretrain_epochs != 0 and pretraining.pretrain_targets == "chances":
            check_next_tokens(extra, transfer_set)
            vocabulary = read_vocabulary(transfer_set) if any(extra.next_tokens) else []
        if distillation.word_weight:
            check_words(extra, transfer_set)
        whole = len(extra.sentences)
        scored = [s for split in task.scored.values() for s in split.sentences]
        extra = extra.without(scored)
        left_out = whole - len(extra.sentences)
        why = f"; {left_out} others came of sentences held out or scored" if left_out else ""
        say(f"transfer set: {len(extra.sentences)} sentences of {transfer_set}{why}")
    kept = KeptLogits(teacher.sha256)
    word_logits: list[np.ndarray] = []
    logits, computed = {}, 0
    for name, split in task.splits().items():
        if name == "train" and distillation.word_weight:
            kept_words = KeptLogits(teacher.sha256, "-words")
            found, new = label_sentences(split.sentences, kept_words, teacher.word_logits)
            rows = [one.view(-1, len(teacher.labels)) for one in found]
            logits[name] = torch.stack([one[-1] for one in rows])
            word_logits = [one[:-1].numpy() for one in rows]
        else:
            found, new = label_sentences(split.sentences, kept, teacher.logits)
            logits[name] = torch.stack(found)
        computed += new
    say(f"teacher logits: {computed} sentences labelled now, the others kept in {kept.file.parent}")
    labels = torch.tensor(task.train.labels)
    soft = logits["train"]
    if extra:
        soft = torch.cat([soft, torch.from_numpy(extra.logits)])
        labels = F.pad(labels, (0, len(extra.sentences)), value=UNLABELLED)
        word_logits += extra.word_logits if distillation.word_weight else []

    def loss(of_student: Tensor, index: Tensor) -> Tensor:
        return distillation_loss(
            of_student,
            soft[index].to(of_student.device),
            labels[index].to(of_student.device),
            distillation.temperature,
            distillation.alpha,
            distillation.loss,
        )

    def word_loss(of_student: Tensor, of_teacher: Tensor) -> Tensor:
        losses = soft_losses(of_student, of_teacher, distillation.temperature, distillation.loss)
        return distillation.word_weight * losses

    config = runs.describe_run(
        "distil", SR, task.corpus, [distillation, shape, pretraining, data, settings], 0
    )
    scores = {n: evaluation(logits[n].numpy(), s.labels) for n, s in task.scored.items()}
    config["teacher"] = {
        "path": str(teacher_path),
        "sha256": teacher.sha256,
        "title": teacher.title,
        "parameters": teacher.parameters,
        "scores": scores,
    }
    if extra and transfer_set:
        kinds = Counter(source.partition(":")[0] for source in extra.sources)
        config["transfer_set"] = {
            "path": str(transfer_set),
            "sentences": dict(kinds),
            "sha256": extra.sha256(),
        }
    rank = read_json(teacher_path / ADAPTER_CONFIG)["r"]
    title = f"DistilRNN from {teacher.title} rank {rank}, on {task.corpus.name}, SR {SR}"
    plot = plots_path / "distilrnn_training_plot.png"
    aim = Aim(loss, word_logits, word_loss if distillation.word_weight else None, vocabulary)
    run = runs.Run(task, config, settings, folder, plot, title)
    train_student(run, shape, pretraining, extra, aim)


def train_control(
    SR: int,
    shape: StudentSettings,
    pretraining: PretrainSettings,
    data: DataSettings,
    settings: TrainSettings,
    folder: Path,
    plots_path: Path,
) -> None:
    """Trains the student that `distil` would, on the labels alone; see `commands.rnn`."""
    runs.check_target(folder, "--student_path", plots_path, settings.resume)
    task = runs.read_task(data, SR)
    config = runs.describe_run("rnn", SR, task.corpus, [shape, pretraining, data, settings], 0)
    title = f"DistilRNN without a teacher, on {task.corpus.name}, SR {SR}"
    plot = plots_path / "rnn_training_plot.png"
    run = runs.Run(task, config, settings, folder, plot, title)
    train_student(run, shape, pretraining, None, Aim(task.cross_entropy()))

"""The command rnn: the student that distil would train, without a teacher."""

import logging
from functools import partial
from pathlib import Path

from potstill.decoder.classifier import parameter_counts
from potstill.distillation.lm_targets import LMDataset
from potstill.recipes._comparison import print_comparison
from potstill.recipes._run import Run, check_target, describe_run, fit, read_task, write_run
from potstill.recipes._student import (
    build_student,
    encode_splits,
    match_prevalence,
    network,
    pretrain_student,
    resolve_epochs,
)
from potstill.recipes.console import format_count
from potstill.settings import DataSettings, PretrainSettings, StudentSettings, TrainSettings
from potstill.student.io import save_student
from potstill.student.tokenizer import train_tokenizer
from potstill.training.losses import classification_loss

logger = logging.getLogger(__name__)


def train_baseline(
    *,
    seed: int,
    student: StudentSettings,
    pretraining: PretrainSettings,
    data: DataSettings,
    train: TrainSettings,
    folder: Path,
    plots_path: Path,
) -> None:
    """Train the student that `distil` would, on the labels alone; see `commands.rnn`."""
    check_target(folder, "student_path", plots_path, train.resume)
    task = read_task(data, seed)
    train, pretraining = resolve_epochs(train, pretraining, transfer_set=False)

    tokenizer = train_tokenizer(task.train.sentences, student.vocab_size)
    evaluations = encode_splits(tokenizer, task, data.max_length)
    labelled = evaluations.pop("train")
    model = build_student(student, tokenizer, task, seed=seed, precision=train.precision)
    total, _ = parameter_counts(model)
    logger.info(f"student: DistilRNN, {format_count(total)} parameters")

    config = describe_run("rnn", seed, task.corpus, [student, pretraining, data, train])
    config["student"] = network(student, tokenizer, task)
    config["parameters"] = {"total": total, "trainable": total}
    title = f"DistilRNN without a teacher, on {task.corpus.name}, SR {seed}"
    run = Run(task, config, train, folder, plots_path / "rnn_training_plot.png", title)

    run = pretrain_student(run, model, LMDataset(labelled.tokens), pretraining)
    trained = fit(run, model, labelled, evaluations, classification_loss)
    bias = match_prevalence(model, labelled, config["labels"]) if student.match_prevalence else None
    save = partial(save_student, model, tokenizer)
    write_run(run, model, evaluations, trained, save=save, bias=bias)
    print_comparison(folder)
    logger.info(f"student: {run.folder}\nplot: {run.plot}")

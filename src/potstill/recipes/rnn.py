"""The command rnn: the student that distil would train, without a teacher."""

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from potstill.decoder.classifier import parameter_counts
from potstill.distillation.lm_targets import LMDataset
from potstill.distillation.resident import on_device
from potstill.inference.student import StudentClassifier
from potstill.progress import Progress, no_progress
from potstill.recipes._decisions import check_decisions, class_weights
from potstill.recipes._description import describe_run
from potstill.recipes._run import Run, fit, read_task
from potstill.recipes._student import (
    build_student,
    choose_base,
    encode_splits,
    make_tokenizer,
    pretrain_student,
    resolve_training,
    write_student,
)
from potstill.recipes._unfinished import alone_in, check_target
from potstill.recipes.console import format_count, log_choice
from potstill.settings import (
    DataSettings,
    DecisionSettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)
from potstill.student.base import load_init
from potstill.training.losses import classification_loss

logger = logging.getLogger(__name__)


def train_baseline(
    data: Any = "auto",
    *,
    seed: int,
    student: StudentSettings = StudentSettings(),
    pretraining: PretrainSettings = PretrainSettings(),
    data_settings: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(),
    decisions: DecisionSettings = DecisionSettings(),
    output: str | Path | None = None,
    plots_path: str | Path | None = None,
    progress: Progress = no_progress,
) -> StudentClassifier:
    """Train the student that `distil` would, on the labels alone.

    Args:
        data: Labelled sentences: a corpus, or what `load_corpus` makes one of: a file, a folder, a
            DataFrame, two lists, "cola", "minicola", or "auto": CoLA if it is in data/ or can be
            downloaded, else MiniCoLA.
        seed: Determines the held-out slice, the first weights and the order of the sentences.
        data_settings: The columns of a file, the held-out slice and the maximum length; `data`
            takes the place of its own.
        train: How it is trained.
        decisions: Class weights, calibration of the probabilities, and the goal of the thresholds.
        output: Folder to write the run to. Default: runs/rnn-SEED. A run that is there is
            replaced.
        plots_path: Folder for rnn_training_plot.png. Default: no plot.
        progress: Shows how far it is.

    Returns:
        The student, loaded from `output`.

    Raises:
        UserError: The data or what the student starts from is missing or damaged, or `output`
            holds anything but a run.
    """
    folder = Path(output or f"runs/rnn-{seed}")
    plots_folder = Path(plots_path) if plots_path else None
    check_target(folder, plots_folder, train)
    base = load_init(student)
    task, data_settings = read_task(data, data_settings, seed)
    check_decisions(decisions, task.corpus.labels, task.scored)
    weights = class_weights(decisions, task.train, task.corpus.labels)
    base, init = choose_base(base, student, task.train.sentences)
    plan, pretraining = resolve_training(
        train,
        pretraining,
        sentences=len(task.train),
        transfer_set=False,
        init=base is not None,
    )

    if init:
        log_choice("init", init)
    tokenizer = make_tokenizer(base, task.train.sentences, student.vocab_size)
    evaluations = encode_splits(tokenizer, task, data_settings.max_length)
    labelled = evaluations.pop("train")
    model = build_student(student, tokenizer, task, seed=seed, precision=train.precision, base=base)
    total, _ = parameter_counts(model)
    logger.info(f"student: DistilRNN, {format_count(total)} parameters")

    settings = [student, pretraining, data_settings, plan, decisions]
    config = describe_run("rnn", seed, task.corpus, settings)
    if base:
        config["init"] = base.describe()
    config["student"] = asdict(model.config)
    config["parameters"] = {"total": total, "trainable": total}
    title = f"DistilRNN without a teacher, on {task.corpus.name}, SR {seed}"
    plot = plots_folder / "rnn_training_plot.png" if plots_folder else None
    run = Run(task, config, plan, folder, plot, title)

    text = LMDataset(labelled.tokens)
    with alone_in(folder, train):
        pretrain_student(run, model, text, pretraining, progress=progress)
        trained = fit(
            run,
            model,
            on_device(model, labelled),
            evaluations,
            loss_function=partial(classification_loss, class_weights=weights),
            progress=progress,
        )
        write_student(
            run,
            model,
            tokenizer,
            trained,
            labelled=labelled,
            evaluations=evaluations,
            match=student.match_prevalence,
            decisions=decisions,
        )
    return StudentClassifier(folder)

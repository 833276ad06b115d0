"""The command distil: a teacher, its sentences and a transfer set in, a student out."""

import itertools
import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from potstill.decoder.classifier import parameter_counts
from potstill.distillation.dataset import DistillationDataset, labelled_dataset
from potstill.distillation.losses import distillation_loss
from potstill.distillation.resident import on_device
from potstill.distillation.streamed import StreamedDataset
from potstill.distillation.tokenise import tokenise_set
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.student import StudentClassifier
from potstill.inference.teacher import load_teacher
from potstill.progress import Progress, no_progress
from potstill.recipes._corpus import trained_on
from potstill.recipes._decisions import check_decisions, class_weights
from potstill.recipes._description import describe_run
from potstill.recipes._language import log_foreign_text
from potstill.recipes._run import Run, Task, fit, read_task
from potstill.recipes._student import (
    build_student,
    choose_base,
    encode_splits,
    make_tokenizer,
    pretrain_student,
    resolve_training,
    write_student,
)
from potstill.recipes._teacher import check_labels, describe_teacher, label_splits
from potstill.recipes._unfinished import alone_in, check_target
from potstill.recipes.console import format_count, log_choice
from potstill.settings import (
    DataSettings,
    DecisionSettings,
    DistilSettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)
from potstill.student.base import load_init
from potstill.training.distributed import process
from potstill.transfer.dataset import (
    Selection,
    TransferSet,
    check_teacher,
    check_top_k,
    check_words,
    read_transfer_set,
)
from potstill.transfer.shards import read_vocabulary

TOKENIZER_SENTENCES = 1_000_000  # of a transfer set; more don't change what it learns

logger = logging.getLogger(__name__)


def distil(
    teacher: DecoderClassifier | str | Path,
    data: Any = "auto",
    *,
    seed: int,
    transfer_set: str | Path | None = None,
    distillation: DistilSettings = DistilSettings(),
    student: StudentSettings = StudentSettings(),
    pretraining: PretrainSettings = PretrainSettings(),
    data_settings: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(),
    decisions: DecisionSettings = DecisionSettings(),
    gpt_variant: str | None = None,
    output: str | Path | None = None,
    plots_path: str | Path | None = None,
    progress: Progress = no_progress,
) -> StudentClassifier:
    """Distil a tuned decoder into a DistilRNN.

    Args:
        teacher: A tuned decoder, or the folder of its adapter.
        data: Labelled sentences: a corpus, what `load_corpus` makes one of, or "auto": the data
            that the teacher was tuned on.
        seed: Determines the held-out slice, the first weights and the order of the sentences.
        transfer_set: Folder of a transfer set to learn from as well.
        data_settings: The columns of a file, the held-out slice and the maximum length; `data`
            takes the place of its own.
        train: How it is trained.
        decisions: Class weights, calibration of the probabilities, and the goal of the thresholds.
        gpt_variant: Base model of an adapter in a folder. Default: the one recorded there.
        output: Folder to write the run to. Default: runs/distil-SEED. A run that is there is
            replaced.
        plots_path: Folder for distilrnn_training_plot.png. Default: no plot.
        progress: Shows how far it is.

    Returns:
        The student, loaded from `output`.

    Raises:
        UserError: The teacher, the data, the transfer set or what the student starts from is
            missing, damaged or does not fit, or `output` holds anything but a run.
    """
    folder = Path(output or f"runs/distil-{seed}")
    plots_folder = Path(plots_path) if plots_path else None
    check_target(folder, plots_folder, train)
    base = load_init(student)
    transfer_path = Path(transfer_set) if transfer_set else None
    unlabelled = read_transfer_set(transfer_path) if transfer_path else None
    if not isinstance(teacher, DecoderClassifier):
        teacher = load_teacher(Path(teacher), gpt_variant=gpt_variant, precision=train.precision)
    log_choice("teacher", f"{teacher.title} in {teacher.folder}")
    data, data_settings, reason = _resolve_data(data, data_settings, teacher)
    task, data_settings = read_task(data, data_settings, seed, reason)
    check_labels(task, teacher)
    check_decisions(decisions, task.corpus.labels, task.scored)
    weights = class_weights(decisions, task.train, task.corpus.labels)
    log_foreign_text(teacher.tokenizer, task.train.sentences)
    base, init = choose_base(base, student, task.train.sentences)
    if unlabelled:
        check_teacher(unlabelled, teacher.sha256)
    selection = _without_scored(unlabelled, task) if unlabelled else None
    plan, pretraining = resolve_training(
        train,
        pretraining,
        sentences=len(task.train) + (len(selection) if selection else 0),
        transfer_set=unlabelled is not None,
        init=base is not None,
    )
    soft_lm = pretraining.pretrain_epochs != 0 and pretraining.pretrain_targets == "soft"
    words = distillation.word_loss_weight > 0
    if unlabelled:
        if soft_lm:
            check_top_k(unlabelled)
        if words:
            check_words(unlabelled)
    logits, word_logits = label_splits(teacher, task, words, progress)

    sentences: Iterable[str] = task.train.sentences
    if selection:
        sentences = itertools.chain(sentences, selection.sentences(TOKENIZER_SENTENCES))
    if init:
        log_choice("init", init)
    tokenizer = make_tokenizer(base, sentences, student.vocab_size)
    max_length = data_settings.max_length
    evaluations = encode_splits(tokenizer, task, max_length)
    labelled = evaluations.pop("train")
    own = labelled_dataset(
        tokenizer,
        task.train.sentences,
        labelled,
        teacher_logits=logits["train"],
        word_logits=word_logits,
        max_length=max_length,
    )
    dataset: DistillationDataset | StreamedDataset = own
    transfer_sha256, tokenised = "", None
    if selection:
        transfer_sha256 = selection.transfer_set.sha256()
        soft = soft_lm and selection.transfer_set.has_top_k
        tokenised = tokenise_set(
            folder.with_name(f"{folder.name}.tokens"),
            selection,
            tokenizer,
            set_sha256=transfer_sha256,
            vocabulary=read_vocabulary(selection.transfer_set.folder) if soft else [],
            words=words,
            max_length=max_length,
            progress=progress,
        )
        dataset = StreamedDataset(own, tokenised)
    model = build_student(
        student,
        tokenizer,
        task,
        seed=seed,
        precision=train.precision,
        base=base,
        word_head=words,
    )
    total, _ = parameter_counts(model)
    ratio = f"1/{teacher.n_parameters / total:.0f} of {teacher.title}"
    logger.info(f"student: DistilRNN, {format_count(total)} parameters; {ratio}")

    groups = [distillation, student, pretraining, data_settings, plan, decisions]
    config = describe_run("distil", seed, task.corpus, groups)
    config["teacher"] = describe_teacher(teacher, task, logits)
    if base:
        config["init"] = base.describe()
    if selection:
        config["transfer_set"] = {
            "path": str(selection.transfer_set.folder),
            "sentences": selection.kinds(),
            "sha256": transfer_sha256,
        }
    config["student"] = asdict(model.config)
    config["parameters"] = {"total": total, "trainable": total}
    title = f"DistilRNN from {teacher.title} rank {teacher.rank}, on {task.corpus.name}, SR {seed}"
    plot = plots_folder / "distilrnn_training_plot.png" if plots_folder else None
    run = Run(task, config, plan, folder, plot, title)

    with alone_in(folder, train):
        pretrain_student(run, model, dataset.text(), pretraining, progress=progress)
        loss = partial(distillation_loss, settings=distillation, class_weights=weights)
        learnt = on_device(model, dataset)
        trained = fit(run, model, learnt, evaluations, loss_function=loss, progress=progress)
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
        if tokenised and process().is_main_process:
            tokenised.remove()
    return StudentClassifier(folder)


def _resolve_data(
    data: Any, settings: DataSettings, teacher: DecoderClassifier
) -> tuple[Any, DataSettings, str]:
    """Return the teacher's own data and its columns in place of "auto", and the reason."""
    if not (isinstance(data, str) and data == "auto") or "data" not in teacher.config:
        return data, settings, ""
    names = ("text_column", "label_column", "group_column")
    columns = {name: teacher.config["settings"].get(name) for name in names}
    return trained_on(teacher), replace(settings, **columns), "what the teacher was tuned on"


def _without_scored(transfer_set: TransferSet, task: Task) -> Selection:
    """Leave out the sentences that are scored or held out, or were made of one of these."""
    unseen = {k: v for k, v in task.corpus.splits.items() if k != "train"} | task.scored
    selection = transfer_set.select(without=[s for each in unseen.values() for s in each.sentences])
    line = f"transfer set: {len(selection)} sentences from {transfer_set.folder}"
    if selection.excluded:
        line += f"; {selection.excluded} left out: held-out or scored sentences, or edits of them"
    logger.info(line)
    return selection

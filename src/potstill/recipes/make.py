"""The command make: labelled data in, a small student and what it is worth out."""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.data.columns import Columns
from potstill.data.corpus import Corpus
from potstill.decoder.hub import BaseModel, find_base_model
from potstill.errors import UsageError, check
from potstill.files import ADAPTER_WEIGHTS, REPORT, STUDENT_ONNX, write_text
from potstill.inference.load import load
from potstill.inference.onnx import OnnxClassifier
from potstill.inference.student import StudentClassifier
from potstill.locks import exclusive
from potstill.progress import Progress, no_progress
from potstill.recipes._budget import (
    Sizes,
    make_plan,
    plan_passes,
    plan_student,
    plan_without_teacher,
)
from potstill.recipes._decisions import check_decisions
from potstill.recipes._inputs import checked_corpus, user_sentences, write_corpus
from potstill.recipes._language import base_tokenizer
from potstill.recipes._scoreboard import baseline_rows, final_split, model_row, teacher_pays
from potstill.recipes._speed import MEASURING, measure, rate_of_run
from potstill.recipes._work import Work, log_end, log_plan, open_work, passes
from potstill.recipes.console import log_choice
from potstill.recipes.distil import distil
from potstill.recipes.lora import train_adapter
from potstill.recipes.rnn import train_baseline
from potstill.recipes.transfer import make_transfer_set
from potstill.report.page import report_html
from potstill.report.predictions import read_predictions
from potstill.report.run import read_run
from potstill.report.words import explainer
from potstill.settings import (
    DataSettings,
    DecisionSettings,
    LoRASettings,
    TrainSettings,
)
from potstill.training.distributed import process
from potstill.transfer.settings import TransferSettings

HELD_OUT = 200  # sentences to choose epochs, temperature and thresholds by, where data has many
SAVE_MINUTES = 1.0  # so that an interruption costs little
PATIENCE = 1.2  # times what a transfer set was planned to take, after which it is cut short

logger = logging.getLogger(__name__)


def make(
    data: Any,
    *,
    minutes: float = 15.0,
    unlabelled: str | Path | Sequence[str] | None = None,
    goal: str = "none",
    seed: int = 1,
    base: str = "auto",
    text_column: str | tuple[str, ...] | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    max_length: int = DataSettings.max_length,
    output: str | Path | None = None,
    fresh: bool = False,
    progress: Progress = no_progress,
) -> OnnxClassifier:
    """Turn labelled data into a small student, within so many minutes.

    It checks the data, measures how fast this machine is, tunes a teacher, makes a transfer set
    where the time allows one, distils, exports the student in 8-bit arithmetic, scores it beside
    simpler classifiers and writes a report. Where the time is too short for a teacher, or it learns
    no more than TF-IDF with logistic regression, the student learns from the labels alone.
    Interrupted, the same call goes on.

    Args:
        data: A corpus, or what `load_corpus` makes one of.
        minutes: How long it may take.
        unlabelled: A text file with a sentence a line, or sentences: they come first in the
            transfer set.
        goal: Of the thresholds, as in `DecisionSettings`.
        seed: Determines the held-out slice, the first weights and the order of the sentences.
        base: Name of the base model, as that of `finetune`.
        text_column: Like that of `load_corpus`.
        label_column: Like that of `load_corpus`.
        group_column: Like that of `load_corpus`.
        max_length: Maximum number of tokens of a sentence; longer ones are truncated.
        output: Folder for all that is made. Default: runs/make-NAME, after the data.
        fresh: Start anew where something is in `output` that would be continued.
        progress: Shows how far it is.

    Returns:
        The exported student, which runs without torch.

    Raises:
        UserError: The data can't be trained on, or `output` holds something else.
    """
    check("minutes", minutes, minutes > 0, "more than 0")
    if process().num_processes > 1:
        raise UsageError("`make` runs in one process; start it without torchrun.")
    started = time.monotonic()
    corpus = checked_corpus(data, Columns.of(text_column, label_column, group_column))
    folder = Path(output or f"runs/make-{corpus.name.replace('/', '-')}")
    data_settings = DataSettings(
        text_column=text_column,
        label_column=label_column,
        group_column=group_column,
        max_length=max_length,
    )
    check_decisions(DecisionSettings(goal=goal), corpus.labels, {"holdout": corpus.splits["train"]})
    base_model, own = find_base_model(base), user_sentences(unlabelled)
    settings: dict[str, Any] = {"minutes": minutes, "goal": goal, "seed": seed, "base": base}
    settings |= {
        "data": corpus.sha256,
        "unlabelled": hashlib.sha256("\n".join(own).encode()).hexdigest() if own else None,
    }
    names = ("text_column", "label_column", "group_column", "max_length")
    settings |= {name: getattr(data_settings, name) for name in names}
    with exclusive(folder, "`output`"):
        work = open_work(folder, settings, fresh=fresh, started=started)
        if "rows" not in work.state:
            try:
                _make(work, base_model, data, corpus, own, data_settings, progress)
            except KeyboardInterrupt:
                logger.info(f"what is done is in {folder}; the same command goes on from there")
                raise
            finally:
                work.save()
    log_end(work)
    return OnnxClassifier(folder / "onnx")


def _make(
    work: Work,
    base_model: BaseModel,
    data: Any,
    corpus: Corpus,
    own: list[str],
    data_settings: DataSettings,
    progress: Progress,
) -> None:
    """Do all that is not done yet."""
    folder, train = work.folder, len(corpus.splits["train"])
    data_settings = replace(data_settings, holdout=min(0.1, max(0.05, HELD_OUT / train)))
    held_out = round(data_settings.holdout * train)
    sizes = Sizes(
        train=train - held_out,
        scored=held_out + sum(len(corpus.splits.get(name, ())) for name in ("dev", "ood")),
        final=len(corpus.splits[final_split(corpus)]),
        unlabelled=len(own),
        init=base_tokenizer(corpus.splits["train"].sentences) is not None,
    )
    if "plan" not in work.state:
        log_choice("data", corpus.name, corpus.reason)
        work.state["baselines"] = baseline_rows(corpus)
        split, max_length = corpus.splits["train"], data_settings.max_length
        patience, classes = MEASURING * work.left(), len(corpus.labels)
        rates = measure(base_model, split, classes, max_length=max_length, patience=patience)
        work.decide(make_plan(work.left(), rates, sizes), rates)
        log_plan(work, sizes.train)
    fraction = work.plan.train / sizes.train
    if fraction < 1 or not isinstance(data, str | Path):
        data = folder / "data" / corpus.name.replace("/", "-")
        write_corpus(corpus, data, fraction, work.state["settings"]["seed"])
        group = "group" if corpus.splits["train"].groups else None
        data_settings = replace(
            data_settings, text_column=None, label_column=None, group_column=group
        )
    data_settings = replace(data_settings, data=str(data))
    if work.plan.teacher_epochs and "teacher_pays" not in work.state:
        if not work.is_done("teacher"):
            _tune(work, base_model, data_settings, progress)
        # How fast the machine was then says more than the few steps before.
        rates = work.rates.slower(work.rates.tuning / rate_of_run(folder / "teacher"))
        sizes = replace(sizes, train=work.plan.train)
        held = read_predictions(folder / "teacher").get("holdout", [])
        work.state["teacher_pays"] = teacher_pays(held, corpus.splits["train"], corpus.labels)
        if work.state["teacher_pays"]:
            rest = plan_student(work.left(), rates, sizes, work.plan.teacher_epochs)
        else:
            logger.warning(f"so the teacher is not used: {work.labels_alone()}")
            rest = plan_without_teacher(work.left(), rates, sizes)
        work.decide(
            replace(
                rest,
                teacher_epochs=work.plan.teacher_epochs,
                seconds=work.plan.seconds | rest.seconds,
            ),
            rates,
        )
    if work.plan.transfer and not work.is_done("transfer"):
        _collect(work, own)
    if not work.is_done("student"):
        _train_student(work, data_settings, sizes.init, progress)
    with work.step("finish", "export, scores and report"):
        work.state["rows"] = _finish(work, corpus, base_model)


def _tune(
    work: Work, base_model: BaseModel, data_settings: DataSettings, progress: Progress
) -> None:
    """Tune the teacher."""
    epochs, settings = work.plan.teacher_epochs, work.state["settings"]
    with work.step("teacher", f"teacher: {passes(epochs)} with LoRA"):
        train_adapter(
            base_model,
            data_settings.data,
            seed=settings["seed"],
            lora=LoRASettings(),
            data_settings=data_settings,
            train=TrainSettings(epochs=epochs, save_minutes=SAVE_MINUTES),
            decisions=DecisionSettings(goal=settings["goal"]),
            folder=work.folder / "teacher",
            plots_path=work.folder / "plots",
            progress=progress,
        )


def _collect(work: Work, own: list[str]) -> None:
    """Make the transfer set; where that takes longer than was planned, a smaller one."""
    plan, folder = work.plan, work.folder
    file = None
    if plan.user:
        file = folder / "unlabelled.txt"
        write_text(file, "".join(f"{sentence}\n" for sentence in own[: plan.user]))
    kinds = {"of yours": plan.user, "sampled": plan.sampled, "edited": plan.edited}
    about = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items() if n)
    with work.step("transfer", f"transfer set: {about} sentences"):
        make_transfer_set(
            work.state["settings"]["seed"],
            TransferSettings(sampled=plan.sampled, edited=plan.edited),
            teacher_path=folder / "teacher",
            folder=folder / "transfer",
            unlabelled=file,
            deadline=time.monotonic() + PATIENCE * plan.seconds["transfer"],
        )


def _train_student(work: Work, data_settings: DataSettings, init: bool, progress: Progress) -> None:
    """Distil, or train on the labels alone, for as many epochs as there is time for now."""
    folder, settings = work.folder, work.state["settings"]
    pays = work.state.get("teacher_pays", False)
    if "student" not in work.state["steps"]:
        plan, rates = work.plan, work.rates
        labelling = plan.train / rates.labelling if pays else 0.0
        begun = plan_passes(
            plan,
            work.left() - plan.seconds["finish"] - labelling,
            rates.student if pays else rates.student_alone,
            transfer_set=plan.transfer > 0,
            init=init,
        )
        work.decide(begun, rates)
    plan = work.plan
    train = TrainSettings(
        epochs=plan.student_epochs, minutes=plan.student_minutes, save_minutes=SAVE_MINUTES
    )
    common: dict[str, Any] = {
        "seed": settings["seed"],
        "data_settings": data_settings,
        "train": train,
        "decisions": DecisionSettings(goal=settings["goal"]),
        "output": folder / "student",
        "plots_path": folder / "plots",
        "progress": progress,
    }
    with work.step("student", f"student: {passes(plan.student_epochs)} at most"):
        if pays:
            transfer_set = folder / "transfer" if plan.transfer else None
            distil(folder / "teacher", data_settings.data, transfer_set=transfer_set, **common)
        else:
            train_baseline(data_settings.data, **common)


def _finish(work: Work, corpus: Corpus, base_model: BaseModel) -> list[dict[str, Any]]:
    """Export the student and write the report; return the rows of the final table."""
    folder, rows = work.folder, [*work.state["baselines"]]
    texts = [text for split in corpus.splits.values() for text in split.sentences]
    student = StudentClassifier(folder / "student")
    exported = student.export_onnx(folder / "onnx", int8=True, texts=texts)
    runs = [read_run(folder / "student")]
    if work.plan.teacher_epochs:
        teacher = load(folder / "teacher")
        weights = [*base_model.folder.glob("*.safetensors"), folder / "teacher" / ADAPTER_WEIGHTS]
        unused = "" if work.state["teacher_pays"] else ", not used"
        rows.append(model_row(f"teacher{unused}, {teacher.title}", teacher, corpus, weights))
        runs.append(read_run(folder / "teacher"))
    rows.append(model_row("student, int8", exported, corpus, [folder / "onnx" / STUDENT_ONNX]))
    # Its words are coloured by the student alone, which answers at once.
    explainers = [explainer(folder / "student"), *[None] * (len(runs) - 1)]
    write_text(folder / REPORT, report_html(runs, explainers))
    return rows

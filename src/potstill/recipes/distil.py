"""The command distil: a teacher, its sentences and a transfer set in, a student out."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.console import count, progress_bar, say, say_choice
from potstill.decoder.classifier import parameter_counts
from potstill.distillation.dataset import Aim
from potstill.distillation.lm_targets import SoftTargets
from potstill.distillation.logit_cache import KeptLogits, label_sentences
from potstill.distillation.losses import distillation_loss, soft_losses, with_words
from potstill.distillation.pretrain import pretrain
from potstill.distillation.word_targets import word_targets
from potstill.errors import UserError
from potstill.files import ADAPTER_CONFIG, read_json
from potstill.inference.teacher import load_teacher
from potstill.metrics import evaluation, prevalence_bias
from potstill.recipes._corpus import trained_on
from potstill.recipes._run import (
    TITLES,
    Run,
    carry_out,
    check_target,
    describe_run,
    read_task,
    relatives,
    resumable,
)
from potstill.recipes.tables import comparison_table
from potstill.settings import (
    DataSettings,
    DistilSettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)
from potstill.student.heads import WordByWord
from potstill.student.io import save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import encode, train_tokenizer, word_end_positions
from potstill.training.checkpoint import TrainingState
from potstill.training.distributed import predict_logits
from potstill.training.loop import UNLABELLED, Examples
from potstill.training.precision import resolve_precision
from potstill.transfer.dataset import (
    TransferSet,
    check_teacher,
    check_top_k,
    check_words,
    read_transfer_set,
)
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import read_vocabulary
from potstill.transfer.top_k import TopKTargets

EPOCHS = 20
EPOCHS_WITH_SET = 4  # of a hundred thousand sentences
PRETRAIN_EPOCHS = 6
PRETRAIN_EPOCHS_WITH_SET = 3


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
    check_target(folder, "--student_path", plots_path, settings.resume)
    extra = read_transfer_set(transfer_set) if transfer_set else None
    teacher = load_teacher(teacher_path, gpt_variant=gpt_variant, precision=settings.precision)
    say_choice("teacher", f"{teacher.title} in {teacher_path}")
    reason = ""
    if data.data == "auto" and "data" in teacher.config:
        columns = {k: teacher.config["settings"][k] for k in ("text_column", "label_column")}
        data = replace(data, data=trained_on(teacher), **columns)
        reason = "what the teacher was tuned on"
    task = read_task(data, SR, reason)
    if task.corpus.labels != tuple(teacher.classes_):
        raise UserError(
            f"the teacher in {teacher_path} knows {', '.join(tuple(teacher.classes_))}, "
            f"but {task.corpus.path} is labelled {', '.join(task.corpus.labels)}."
        )
    vocabulary: list[str] = []
    if extra and transfer_set:
        check_teacher(extra, transfer_set, teacher.sha256)
        if pretraining.pretrain_epochs != 0 and pretraining.pretrain_targets == "soft":
            check_top_k(extra, transfer_set)
            vocabulary = read_vocabulary(transfer_set) if any(extra.top_k) else []
        if distillation.word_loss_weight:
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
        if name == "train" and distillation.word_loss_weight:
            kept_words = KeptLogits(teacher.sha256, "-words")
            found, new = label_sentences(split.sentences, kept_words, teacher.word_logits)
            rows = [one.reshape(-1, len(teacher.classes_)) for one in found]
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
        word_logits += extra.word_logits if distillation.word_loss_weight else []

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
        return distillation.word_loss_weight * losses

    config = describe_run(
        "distil", SR, task.corpus, [distillation, shape, pretraining, data, settings], 0
    )
    scores = {n: evaluation(logits[n].numpy(), s.labels) for n, s in task.scored.items()}
    config["teacher"] = {
        "path": str(teacher_path),
        "sha256": teacher.sha256,
        "title": teacher.title,
        "parameters": teacher.n_parameters,
        "scores": scores,
    }
    if extra and transfer_set:
        config["transfer_set"] = {
            "path": str(transfer_set),
            "sentences": extra.kinds(),
            "sha256": extra.sha256(),
        }
    rank = read_json(teacher_path / ADAPTER_CONFIG)["r"]
    title = f"DistilRNN from {teacher.title} rank {rank}, on {task.corpus.name}, SR {SR}"
    plot = plots_path / "distilrnn_training_plot.png"
    aim = Aim(loss, word_logits, word_loss if distillation.word_loss_weight else None, vocabulary)
    run = Run(task, config, settings, folder, plot, title)
    train_student(run, shape, pretraining, extra, aim)


def train_student(
    run: Run,
    shape: StudentSettings,
    pretraining: PretrainSettings,
    extra: TransferSet | None,
    aim: Aim,
) -> None:
    """Trains, writes and reports a student; `aim` knows the sentences of train before those of
    `extra`."""
    task, config, settings = run.task, run.config, run.settings
    unlabelled = extra.sentences if extra else []
    tokenizer = train_tokenizer([*task.train.sentences, *unlabelled], shape.vocab_size)
    examples = {
        name: Examples(encode(tokenizer, split.sentences, config["max_length"]), split.labels)
        for name, split in task.splits().items()
    }
    labelled = examples["train"]
    if unlabelled:
        more = encode(tokenizer, unlabelled, config["max_length"])
        none = [UNLABELLED] * len(more)
        examples["train"] = Examples(labelled.tokens + more, labelled.labels + none)
    torch.manual_seed(config["SR"])
    wanted = shape.model_kwargs()
    wanted |= {"vocab_size": tokenizer.get_vocab_size(), "classes": len(task.corpus.labels)}
    model = DistilRNN(StudentConfig(**wanted))
    model.product_dtype = resolve_precision(settings.precision)
    learner: torch.nn.Module = model
    loss = aim.loss
    if aim.word_loss:
        sentences = [*task.train.sentences, *unlabelled]
        places = word_end_positions(tokenizer, sentences, config["max_length"])
        loss = with_words(loss, word_targets(places, aim.word_logits), aim.word_loss)
        learner = WordByWord(model)
    total, _ = parameter_counts(model)
    teacher = config.get("teacher")
    ratio = f"; 1/{teacher['parameters'] / total:.0f} of {teacher['title']}" if teacher else ""
    say(f"student: DistilRNN, {count(total)} parameters{ratio}")
    config["settings"]["epochs"] = settings.epochs or (EPOCHS_WITH_SET if extra else EPOCHS)
    pretrain_epochs = pretraining.pretrain_epochs
    if pretrain_epochs is None:
        pretrain_epochs = PRETRAIN_EPOCHS_WITH_SET if extra else PRETRAIN_EPOCHS
    config["settings"]["pretrain_epochs"] = pretrain_epochs
    begun = settings.resume and run.state().exists()
    if pretrain_epochs and not begun:
        # Edits are mostly not what a language model should learn to write.
        written = [o.kind is not SourceKind.EDITED for o in extra.origins] if extra else []
        written = [True] * len(task.train.sentences) + written
        text = list(itertools.compress(examples["train"].tokens, written))
        soft = None
        if extra and aim.vocabulary:
            sentences = list(itertools.compress([*task.train.sentences, *unlabelled], written))
            likely: list[TopKTargets | None] = [None] * len(task.train.sentences)
            likely += itertools.compress(extra.top_k, written[len(likely) :])
            soft = SoftTargets(tokenizer, aim.vocabulary, sentences, likely, text)
        of_text = replace(settings, lr=pretraining.pretrain_lr)
        state = run.state("language_model")
        _pretrain(model, text, pretrain_epochs, of_text, config["SR"], state, soft)
        run = replace(run, settings=replace(settings, resume=False))
    config["student"] = wanted
    config["parameters"] = {"total": total, "trainable": total}

    def save(staging: Path) -> None:
        save_student(model, tokenizer, staging)

    def settle() -> Tensor:
        return _match_prevalence(model, labelled, task.corpus.labels)

    settled = settle if shape.match_prevalence else None
    outcome = carry_out(run, learner, examples, loss, save, settle=settled)
    row = {"parameters": total, "scores": outcome.results["chosen"]}
    rows = {TITLES[config["command"]]: row} | relatives(run.folder, config)
    # Distilled above its control, whichever was trained just now, and the teacher above both.
    order = sorted(rows, key=lambda name: (name in TITLES.values(), name))
    comparison_table(f"{task.corpus.name}, SR {config['SR']}", {name: rows[name] for name in order})
    say(f"student: {run.folder}\nplot: {run.plot}")


def _pretrain(
    model: DistilRNN,
    text: list[list[int]],
    epochs: int,
    settings: TrainSettings,
    seed: int,
    state: TrainingState,
    soft: SoftTargets | None,
) -> None:
    """Makes a language model of the student, or goes on with one, and says what became of it."""
    started = time.perf_counter()
    with resumable(state), progress_bar(epochs * len(text)) as show:
        loss = pretrain(model, text, settings, epochs, seed, show, state, soft)
    seconds = time.perf_counter() - started
    known = f"; {soft.share():.0%} of the next tokens by the decoder's chances" if soft else ""
    say(
        f"language model first: {epochs} epochs over {len(text)} sentences, {seconds:.0f} s, "
        f"{loss:.3f} nats a token{known}"
    )


@torch.no_grad()
def _match_prevalence(model: DistilRNN, labelled: Examples, classes: Sequence[str]) -> Tensor:
    """Changes the biases of `model` so that it calls as many of the `labelled` sentences each class
    as are; gives the (classes,) changes, says what they are.

    What a student is not sure of it takes for the class that is frequent, so that it calls too many
    sentences that.
    """
    logits = predict_logits(model, labelled.tokens).numpy()
    bias = torch.from_numpy(prevalence_bias(logits, labelled.labels)).float()
    model.score.bias.add_(bias.to(model.score.bias.device))
    are, called = (
        np.bincount(answers, minlength=len(classes)) / len(logits)
        for answers in (labelled.labels, logits.argmax(1))
    )
    shares = ", ".join(
        f"{name} {100 * now:.1f} % ({100 * before:.1f} % without a shift of {shift:+.2f})"
        for name, now, before, shift in zip(classes, are, called, bias.tolist(), strict=True)
        if shift
    )
    say(f"called as often as they are, in train: {shares or 'all classes as they were learnt'}")
    return bias

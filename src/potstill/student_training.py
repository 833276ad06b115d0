"""What distil and rnn share: a student trained, written and reported, whatever it learns from."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill import classifier, runs
from potstill import student as students
from potstill.batching import predict_logits
from potstill.checkpoint import read_json
from potstill.metrics import prevalence_bias
from potstill.next_tokens import NextTokens, SoftTargets
from potstill.pretraining import pretrain
from potstill.reporting import comparison_table, count, progress_bar, say
from potstill.settings import PretrainSettings, StudentSettings, TrainSettings
from potstill.state import TrainingState
from potstill.training import UNLABELLED, Examples, LossFunction, resolve_precision
from potstill.transfer import TransferSet
from potstill.words import WordByWord, with_words, word_targets

EPOCHS = 20
EPOCHS_WITH_SET = 4  # of a hundred thousand sentences
PRETRAIN_EPOCHS = 6
PRETRAIN_EPOCHS_WITH_SET = 3
TITLES = {"distil": "DistilRNN, distilled", "rnn": "DistilRNN, no teacher"}


@dataclass(frozen=True)
class Aim:
    """What a student is trained for: the loss of whole sentences and, where there is one, that of
    the teacher's logits after each word of every sentence; and the tokens of the decoder whose
    chances its language model learns from, if from any."""

    loss: LossFunction
    word_logits: list[np.ndarray] = field(default_factory=list)
    word_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    vocabulary: list[str] = field(default_factory=list)


def train_student(
    run: runs.Run,
    shape: StudentSettings,
    pretraining: PretrainSettings,
    extra: TransferSet | None,
    aim: Aim,
) -> None:
    """Trains, writes and reports a student; `aim` knows the sentences of train before those of
    `extra`."""
    task, config, settings = run.task, run.config, run.settings
    unlabelled = extra.sentences if extra else []
    tokenizer = students.train_tokenizer([*task.train.sentences, *unlabelled], shape.vocab_size)
    examples = {
        name: Examples(
            students.encode(tokenizer, split.sentences, config["max_length"]), split.labels
        )
        for name, split in task.splits().items()
    }
    labelled = examples["train"]
    if unlabelled:
        more = students.encode(tokenizer, unlabelled, config["max_length"])
        none = [UNLABELLED] * len(more)
        examples["train"] = Examples(labelled.tokens + more, labelled.labels + none)
    torch.manual_seed(config["SR"])
    wanted = shape.of_network()
    wanted |= {"vocab_size": tokenizer.get_vocab_size(), "classes": len(task.corpus.labels)}
    model = students.DistilRNN(students.StudentConfig(**wanted))
    model.product_dtype = resolve_precision(settings.precision)
    learner: torch.nn.Module = model
    loss = aim.loss
    if aim.word_loss:
        sentences = [*task.train.sentences, *unlabelled]
        places = students.word_places(tokenizer, sentences, config["max_length"])
        loss = with_words(loss, word_targets(places, aim.word_logits), aim.word_loss)
        learner = WordByWord(model)
    total, _ = classifier.parameter_counts(model)
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
        written = [not source.startswith("edited") for source in extra.sources] if extra else []
        written = [True] * len(task.train.sentences) + written
        text = list(itertools.compress(examples["train"].tokens, written))
        soft = None
        if extra and aim.vocabulary:
            sentences = list(itertools.compress([*task.train.sentences, *unlabelled], written))
            likely: list[NextTokens | None] = [None] * len(task.train.sentences)
            likely += itertools.compress(extra.next_tokens, written[len(likely) :])
            soft = SoftTargets(tokenizer, aim.vocabulary, sentences, likely, text)
        of_text = replace(settings, lr=pretraining.pretrain_lr)
        state = run.state("language_model")
        _pretrain(model, text, pretrain_epochs, of_text, config["SR"], state, soft)
        run = replace(run, settings=replace(settings, resume=False))
    config["student"] = wanted
    config["parameters"] = {"total": total, "trainable": total}

    def save(staging: Path) -> None:
        students.save_student(model, tokenizer, staging)

    def settle() -> Tensor:
        return _match_prevalence(model, labelled, task.corpus.labels)

    settled = settle if shape.match_prevalence else None
    outcome = runs.carry_out(run, learner, examples, loss, save, settle=settled)
    row = {"parameters": total, "scores": outcome.results["chosen"]}
    rows = {TITLES[config["command"]]: row} | _relatives(run.folder, config)
    # Distilled above its control, whichever was trained just now, and the teacher above both.
    order = sorted(rows, key=lambda name: (name in TITLES.values(), name))
    comparison_table(f"{task.corpus.name}, SR {config['SR']}", {name: rows[name] for name in order})
    say(f"student: {run.folder}\nplot: {run.plot}")


def _pretrain(
    model: students.DistilRNN,
    text: list[list[int]],
    epochs: int,
    settings: TrainSettings,
    seed: int,
    state: TrainingState,
    soft: SoftTargets | None,
) -> None:
    """Makes a language model of the student, or goes on with one, and says what became of it."""
    started = time.perf_counter()
    with runs.resumable(state), progress_bar(epochs * len(text)) as show:
        loss = pretrain(model, text, settings, epochs, seed, show, state, soft)
    seconds = time.perf_counter() - started
    known = f"; {soft.share():.0%} of the next tokens by the decoder's chances" if soft else ""
    say(
        f"language model first: {epochs} epochs over {len(text)} sentences, {seconds:.0f} s, "
        f"{loss:.3f} nats a token{known}"
    )


@torch.no_grad()
def _match_prevalence(
    model: students.DistilRNN, labelled: Examples, classes: Sequence[str]
) -> Tensor:
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


def _relatives(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Rows of the table beside a student's own: its teacher, and the student trained the other
    way where that was done on the same terms."""
    other = "rnn" if config["command"] == "distil" else "distil"
    sibling = folder.parent / f"{other}-{config['SR']}"
    rows = {}
    teacher = config.get("teacher")
    if not (sibling / "results.json").is_file():
        if other == "rnn":
            say(f"not in the table: the control, which `potstill rnn {config['SR']}` would train")
    else:
        found = read_json(sibling / "config.json")
        if differing := _differences(found, config):
            say(f"not in the table: {sibling}, which differs in {', '.join(differing)}")
        else:
            results = read_json(sibling / "results.json")
            row = {"parameters": results["parameters"], "scores": results["chosen"]}
            rows[TITLES[other]] = row
            teacher = teacher or found.get("teacher")
    if teacher:
        rows[teacher["title"]] = {k: teacher[k] for k in ("parameters", "scores")}
    return rows


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The settings of two students' runs that would make them unfit to compare."""
    shared = [
        f.name
        for group in (StudentSettings, PretrainSettings, TrainSettings)
        for f in fields(group)
    ]
    differing = [
        key
        for key in (*shared, "holdout", "max_length")
        if key != "resume" and one["settings"].get(key) != other["settings"].get(key)
    ]
    if one["data"]["sha256"] != other["data"]["sha256"]:
        differing.append("data")
    return differing

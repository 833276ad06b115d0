"""One run, one folder: what happens around the training loop, for LoRA, distil and rnn alike."""

import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from potstill import __version__
from potstill.console import say, say_choice
from potstill.data.corpus import Corpus, hold_out, load_corpus
from potstill.data.splits import Split
from potstill.errors import UserError
from potstill.files import (
    atomic_folder,
    cache_folder,
    check_replaceable,
    check_writable,
    read_json,
    write_json,
    write_text,
)
from potstill.metrics import evaluation, majority_share, score
from potstill.ops import kernels
from potstill.recipes import plots
from potstill.recipes.tables import EPOCH_HEADER, epoch_lines, summary_lines
from potstill.settings import DataSettings, PretrainSettings, StudentSettings, TrainSettings
from potstill.training.checkpoint import Trained, TrainingState
from potstill.training.distributed import predict_logits, process
from potstill.training.loop import Examples, train
from potstill.training.steps import LossFunction

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


@dataclass(frozen=True)
class Task:
    """A corpus made ready for a run: `train` without the slice held out of it, and the splits
    that every epoch is scored on ("holdout", "dev", "ood", those there are)."""

    corpus: Corpus
    train: Split
    scored: dict[str, Split]

    def splits(self) -> dict[str, Split]:
        return {"train": self.train} | self.scored

    def cross_entropy(self) -> LossFunction:
        """The loss of the labels alone."""
        labels = torch.tensor(self.train.labels, device=process().device)

        def loss(logits: Tensor, index: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, labels[index.to(labels.device)])

        return loss


def read_task(data: DataSettings, seed: int, reason: str = "") -> Task:
    """Reads the corpus, says which one it is, and holds out a slice of train."""
    with process().main_process_first():
        corpus = load_corpus(data.data, data.text_column, data.label_column)
    sizes = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    say_choice("data", f"{corpus.name}, sentences: {sizes}", reason or corpus.reason)
    train = corpus.splits["train"]
    scored = {name: split for name, split in corpus.splits.items() if name != "train"}
    if data.holdout:
        train, held = hold_out(train, data.holdout, seed)
        scored = {"holdout": held} | scored
    return Task(corpus, train, scored)


def check_target(folder: Path, flag: str, plots_path: Path, resume: bool) -> None:
    """Raises UserError unless a run can write its results, replaces nothing but a run, and finds
    what it is to resume.

    Asked before training, not after.
    """
    if resume and not _unfinished(folder).exists():
        raise UserError(f"--resume: no interrupted run in {_unfinished(folder)}; run without it.")
    check_replaceable(folder, flag)
    check_writable(folder.parent, flag)
    check_writable(plots_path, "--plots_path")
    check_writable(cache_folder(), "POTSTILL_CACHE")


def describe_run(
    command: str, SR: int, corpus: Corpus, settings: list[Any], epochs: int
) -> dict[str, Any]:
    """What config.json says of every run: settings, data with its hash, versions, machine."""
    flat: dict[str, Any] = {}
    for group in settings:
        flat |= asdict(group)
    versions = {"potstill": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "command": command,
        "SR": SR,
        "labels": list(corpus.labels),
        "max_length": flat["max_length"],
        "settings": flat | {"epochs": epochs},
        "data": corpus.describe(),
        "versions": versions,
        "machine": {
            "system": platform.platform(),
            "threads": torch.get_num_threads(),
            "compiled_kernels": kernels.load_library() is not None,
        },
    }


@dataclass(frozen=True)
class Run:
    """One run: its task, what config.json is to say of it, how it trains, the folder and the plot
    that it writes, and the plot's title."""

    task: Task
    config: dict[str, Any]
    settings: TrainSettings
    folder: Path
    plot: Path
    title: str

    def state(self, stage: str = "state") -> TrainingState:
        """Where it keeps what it needs to go on: beside the folder it will write."""
        config = self.config
        settings = {k: v for k, v in config["settings"].items() if k != "resume"}
        settings |= {k: config[k] for k in ("command", "SR")} | {"data": config["data"]["sha256"]}
        settings |= {
            k: config[k]["sha256"] for k in ("decoder", "teacher", "transfer_set") if k in config
        }
        return TrainingState(_unfinished(self.folder), settings, stage)


@dataclass(frozen=True)
class Outcome:
    """What a run measured: `results` as in results.json, and the logits of every scored split."""

    results: dict[str, Any]
    logits: dict[str, Tensor]


def carry_out(
    run: Run,
    model: nn.Module,
    examples: dict[str, Examples],
    loss: LossFunction,
    save_weights: Callable[[Path], None],
    part_tokens: int | None = None,
    settle: Callable[[], Tensor] | None = None,
) -> Outcome:
    """Trains `model`, writes the run's folder and its plot, and says what came of it.

    save_weights: writes the model's weights into a folder and leaves in the model what a reader
    of these files would get; that is what is scored.
    part_tokens: as in `train`.
    settle: changes the biases of the classes once all is learnt, and gives the (classes,) changes.
    """
    task, config = run.task, run.config
    majority = {name: majority_share(split.labels) for name, split in task.splits().items()}
    state = run.state()
    say(EPOCH_HEADER)
    with resumable(state):
        trained = train(
            model,
            examples["train"],
            loss,
            {name: examples[name] for name in task.scored},
            run.settings,
            config["settings"]["epochs"],
            config["SR"],
            state,
            lambda record: say(epoch_lines(record, majority)),
            part_tokens,
        )
    trained.restore(model)
    bias = settle() if settle else torch.zeros(len(task.corpus.labels))

    def scored() -> Outcome:
        """By all processes together, each with the chosen weights."""
        logits = {name: predict_logits(model, examples[name].tokens) for name in task.scored}
        return Outcome(_results(logits, bias, task, trained, config), logits)

    if process().is_main_process:
        with atomic_folder(run.folder) as staging:
            save_weights(staging)
            outcome = scored()
            write_json(staging / "config.json", config)
            write_json(staging / "results.json", outcome.results)
            lines = "".join(json.dumps(record) + "\n" for record in trained.records)
            write_text(staging / "metrics.jsonl", lines)
        plots.training_plot(trained.records, trained.chosen, majority, run.title, run.plot)
        state.remove()
    else:
        outcome = scored()
    process().wait_for_everyone()
    say(summary_lines(outcome.results))
    return outcome


def _results(
    logits: dict[str, Tensor], bias: Tensor, task: Task, trained: Trained, config: dict[str, Any]
) -> dict[str, Any]:
    chosen = {}
    for name, split in task.scored.items():
        chosen[name] = evaluation(logits[name].numpy(), split.labels, split.sources)
        learnt = score((logits[name] - bias).numpy(), split.labels)
        if abs(learnt["loss"] - trained.best[name]["loss"]) > 1e-3:
            raise RuntimeError(f"what was saved scores otherwise on {name} than what was trained")
    return {
        "chosen_epoch": trained.chosen,
        "chosen": chosen,
        "last": trained.records[-1],
        "bias": bias.tolist(),
        "parameters": config["parameters"]["total"],
    }


@contextmanager
def resumable(state: TrainingState) -> Iterator[None]:
    """Says after an interruption what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if state.folder.exists():
            say("the finished epochs are kept; the same command with --resume goes on after them")
        raise


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.unfinished")


TITLES = {"distil": "DistilRNN, distilled", "rnn": "DistilRNN, no teacher"}


def relatives(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
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

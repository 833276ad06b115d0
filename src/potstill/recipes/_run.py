"""One run, one folder: what happens around the training loop, for LoRA, distil and rnn alike."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from potstill.data.batching import LabelledDataset
from potstill.data.check import check_corpus
from potstill.data.corpus import Corpus, load_corpus
from potstill.data.splits import Split, hold_out
from potstill.files import atomic_folder, write_json, write_text
from potstill.metrics import cross_entropy, majority_share
from potstill.model_card import Kind, write_card
from potstill.progress import Progress, no_progress
from potstill.recipes import plots
from potstill.recipes._decisions import Adjustment, Decided, decide_and_score
from potstill.recipes._unfinished import saving_state, unfinished
from potstill.recipes.check import log_report
from potstill.recipes.console import log_choice
from potstill.recipes.report import write_own_report
from potstill.recipes.tables import EPOCH_HEADER, epoch_lines, summary_lines
from potstill.report.predictions import write_predictions
from potstill.settings import RUN_CONTROL, DataSettings, DecisionSettings, ResolvedTrainSettings
from potstill.training.checkpoint import Checkpoint
from potstill.training.distributed import predict_logits, process
from potstill.training.history import TrainResult
from potstill.training.loop import train
from potstill.training.losses import LossFunction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A corpus made ready for a run: `train` without the slice held out of it, and the splits
    that every epoch is scored on ("holdout", "dev", "ood", those there are)."""

    corpus: Corpus
    train: Split
    scored: dict[str, Split]

    def splits(self) -> dict[str, Split]:
        return {"train": self.train} | self.scored

    def majority(self) -> dict[str, float]:
        """Return the accuracy of the most frequent class, by split."""
        return {name: majority_share(split.labels) for name, split in self.splits().items()}


def read_task(
    data: Any, settings: DataSettings, seed: int, reason: str = ""
) -> tuple[Task, DataSettings]:
    """Read the corpus, log which one it is, and hold out a slice of train.

    Args:
        data: A corpus, or what `load_corpus` makes one of.
        settings: How to read it; `data` takes the place of its own.
        seed: Determines the slice.
        reason: Why it was chosen where nobody named it.

    Returns:
        The task, and the settings that name its data.
    """
    if isinstance(data, Corpus):
        corpus, settings = data, replace(settings, data=data.path)
    else:
        with process().main_process_first():
            corpus = load_corpus(
                data, settings.text_column, settings.label_column, settings.group_column
            )
        settings = replace(
            settings, data=str(data) if isinstance(data, str | Path) else corpus.path
        )
    sizes = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    log_choice("data", f"{corpus.name}, sentences: {sizes}", reason or corpus.reason)
    log_report(check_corpus(corpus))
    train = corpus.splits["train"]
    # `test` is for `evaluate`, when all choices are made.
    scored = {k: split for k, split in corpus.splits.items() if k not in ("train", "test")}
    if settings.holdout:
        train, held = hold_out(train, settings.holdout, seed)
        scored = {"holdout": held} | scored
    return Task(corpus, train, scored), settings


@dataclass(frozen=True)
class Run:
    """One run: its task, its config.json, how it trains, the folder that it writes, its plot, if
    there is to be one, and the plot's title. All of it is known before training begins."""

    task: Task
    config: Mapping[str, Any]
    settings: ResolvedTrainSettings
    folder: Path
    plot: Path | None
    title: str

    def checkpoint(self, stage: str = "state") -> Checkpoint:
        """Return the checkpoint of a stage; it is next to the folder that the run will write."""
        config = self.config
        left_out = (*RUN_CONTROL, "init")
        settings = {k: v for k, v in config["settings"].items() if k not in left_out}
        settings |= {k: config[k] for k in ("command", "SR")} | {"data": config["data"]["sha256"]}
        inputs = ("decoder", "teacher", "transfer_set", "init")
        settings |= {k: config[k]["sha256"] for k in inputs if k in config}
        minutes = self.settings.save_minutes
        return Checkpoint(unfinished(self.folder), settings, stage, minutes=minutes)

    def sentences(self, indices: Sequence[int]) -> list[str]:
        """Return the sentences at `indices` of the training data, those of its corpus first."""
        known = self.task.train.sentences
        return [known[i] if i < len(known) else "(of the transfer set)" for i in indices]


def fit(
    run: Run,
    model: nn.Module,
    dataset: Any,
    evaluations: dict[str, LabelledDataset],
    *,
    loss_function: LossFunction,
    microbatch_tokens: int | None = None,
    progress: Progress = no_progress,
) -> TrainResult:
    """Train `model` as in `train`, log the metrics of every epoch, and leave the chosen epoch's
    weights in the model."""
    majority, checkpoint = run.task.majority(), run.checkpoint()
    logger.info(EPOCH_HEADER)
    with saving_state(checkpoint, sentences=run.sentences):
        result = train(
            model,
            dataset,
            loss_function,
            evaluations,
            settings=run.settings,
            epochs=run.config["settings"]["epochs"],
            seed=run.config["SR"],
            checkpoint=checkpoint,
            report=lambda metrics: logger.info(epoch_lines(metrics, majority)),
            microbatch_tokens=microbatch_tokens,
            progress=progress,
        )
    result.restore(model)
    return result


@dataclass(frozen=True)
class RunResult:
    """What a run measured: `results` as in results.json, the logits of every scored split, and what
    was decided by them."""

    results: dict[str, Any]
    logits: dict[str, Tensor]
    decided: Decided


def write_run(
    run: Run,
    model: nn.Module,
    evaluations: dict[str, LabelledDataset],
    trained: TrainResult,
    *,
    save: Callable[[Path], None],
    decisions: DecisionSettings,
    adjustment: Adjustment,
) -> RunResult:
    """Write the run's folder, whole or not at all, and its plot, and log the scores.

    Args:
        trained: What `fit` returned.
        save: Writes the model's weights into a folder, and leaves in the model what a reader of
            these files gets; that is what is scored.
        adjustment: What was done to the logits after training.
    """
    checkpoint = run.checkpoint()
    with _new_folder(run.folder) as folder:
        save(folder)
        result = _score(run, model, evaluations, trained, decisions, adjustment)
        write_json(folder / "config.json", dict(run.config) | result.decided.config())
        write_json(folder / "results.json", result.results)
        lines = "".join(json.dumps(metrics, allow_nan=False) + "\n" for metrics in trained.history)
        write_text(folder / "metrics.jsonl", lines)
        kind: Kind = "adapter" if "decoder" in run.config else "student"
        write_card(folder, kind, dict(run.config), result.results)
        labels, scored = run.task.corpus.labels, run.task.scored
        write_predictions(
            folder, labels, scored, result.decided.probabilities, result.decided.predicted
        )
    if process().is_main_process:
        if run.plot:
            plots.training_plot(
                trained.history,
                chosen_epoch=trained.chosen_epoch,
                majority=run.task.majority(),
                title=run.title,
                file=run.plot,
            )
            if calibration := result.results["calibration"]:
                plots.reliability_plot(
                    calibration, title=run.title, file=plots.reliability_file(run.plot)
                )
        # A decoder takes long to load, and of several processes one can't predict by itself.
        explained = "student" in run.config and process().num_processes == 1
        write_own_report(run.folder, explained=explained)
        checkpoint.remove()
    process().wait_for_everyone()
    logger.info(summary_lines(result.results))
    return result


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield what becomes `folder` in the end; in processes other than the first, what is thrown
    away."""
    if process().is_main_process:
        with atomic_folder(folder) as staging:
            yield staging
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)


def _score(
    run: Run,
    model: nn.Module,
    evaluations: dict[str, LabelledDataset],
    trained: TrainResult,
    decisions: DecisionSettings,
    adjustment: Adjustment,
) -> RunResult:
    """Score the saved weights, by all processes together."""
    logits = {name: predict_logits(model, evaluations[name].tokens) for name in run.task.scored}
    for name, split in run.task.scored.items():
        loss = cross_entropy(adjustment.as_trained(logits[name]).numpy(), split.labels)
        if abs(loss - trained.chosen_metrics[name]["loss"]) > 1e-3:
            raise RuntimeError(f"what was saved scores otherwise on {name} than what was trained")
    labels = run.task.corpus.labels
    decided = decide_and_score(decisions, labels, run.task.scored, logits, adjustment)
    results = {
        "chosen_epoch": trained.chosen_epoch,
        "chosen": decided.scores,
        "last": trained.history[-1],
        "bias": adjustment.bias.tolist(),
        "calibration": decided.calibration,
        "parameters": run.config["parameters"]["total"],
    }
    return RunResult(results, logits, decided)

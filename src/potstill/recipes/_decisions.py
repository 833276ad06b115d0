"""What LoRA, distil and rnn do about class frequencies, probabilities and thresholds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.calibration import (
    Reliability,
    calibration_error,
    fit_temperature,
    probabilities,
    reliability,
)
from potstill.data.batching import LabelledDataset
from potstill.data.splits import SPLIT_TITLES, Split
from potstill.errors import UsageError, UserError
from potstill.goals import MEASURES, Goal, parse_goal
from potstill.metrics import evaluation
from potstill.recipes.tables import shortened
from potstill.settings import DecisionSettings
from potstill.thresholds import Decision, decide
from potstill.training.distributed import predict_logits, process
from potstill.training.losses import balanced_weights

MIN_SENTENCES = 20  # held out; from fewer a temperature is little more than chance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adjustment:
    """What is done to a model's logits after training: (logits + bias) / temperature.

    Args:
        bias: (classes,); zeros for none.
        temperature: 1 for none.
        in_weights: True if the saved weights have both, as a student's; False if they are those
            that were trained.
    """

    bias: Tensor
    temperature: float
    in_weights: bool

    def as_trained(self, logits: Tensor) -> Tensor:
        """Return the logits that training ended with, from those of the saved weights."""
        return logits * self.temperature - self.bias if self.in_weights else logits

    def uncalibrated(self, logits: Tensor) -> np.ndarray:
        """Return them without the temperature, from those of the saved weights."""
        return (logits * self.temperature if self.in_weights else logits + self.bias).numpy()


@dataclass(frozen=True)
class Decided:
    """What was decided by the held-out sentences, and how that scores.

    Args:
        probabilities: By split (N, classes), calibrated.
        predicted: By split (N,) the classes that are answered.
        scores: By split, as from `evaluation`.
        calibration: How reliable the probabilities are; {} if they are not calibrated.
        decision: The thresholds; {} for none.
    """

    probabilities: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    scores: dict[str, Any]
    calibration: dict[str, Any]
    decision: dict[str, Any]

    def config(self) -> dict[str, Any]:
        """Return what config.json has of it: all that prediction needs."""
        config: dict[str, Any] = {}
        if self.calibration:
            config["calibration"] = {k: self.calibration[k] for k in ("temperature", "sentences")}
        if self.decision:
            config["decision"] = self.decision
        return config


def check_decisions(
    settings: DecisionSettings, labels: Sequence[str], scored: Mapping[str, Split]
) -> None:
    """Raise an error unless the goal can be pursued; before training, not after.

    Args:
        labels: Names of the classes.
        scored: The splits besides train.

    Raises:
        UsageError: Nothing is held out.
        UserError: The goal's class is none of the corpus.
    """
    goal = parse_goal(settings.goal)
    if goal and "holdout" not in scored:
        raise UsageError("`goal` needs held-out sentences: set `holdout` above 0.")
    if goal and goal.label and goal.label not in labels:
        raise UserError(
            f"`goal` {settings.goal}: there is no class {goal.label!r} among {shortened(labels)}."
        )


def class_weights(settings: DecisionSettings, train: Split, labels: Sequence[str]) -> Tensor | None:
    """Return the (classes,) weights of the loss, on the device, and log them; None for none."""
    if settings.class_weight == "none":
        return None
    weights = balanced_weights(train.labels, len(labels))
    texts = [f"{name} {w:.2f}" for name, w in zip(labels, weights.tolist(), strict=True)]
    logger.info(f"class weights: {shortened(texts)}")
    return weights.to(process().device)


def temperature_on_holdout(
    settings: DecisionSettings, model: nn.Module, evaluations: Mapping[str, LabelledDataset]
) -> float:
    """Return the temperature that fits the held-out sentences; 1 where it is not to be fitted, or
    there are too few of them."""
    if not settings.calibrate:
        return 1.0
    n = len(evaluations["holdout"]) if "holdout" in evaluations else 0
    if n < MIN_SENTENCES:
        logger.info(f"not calibrated: that takes {MIN_SENTENCES} held-out sentences, not {n}")
        return 1.0
    holdout = evaluations["holdout"]
    return fit_temperature(predict_logits(model, holdout.tokens).numpy(), holdout.labels)


def decide_and_score(
    settings: DecisionSettings,
    labels: tuple[str, ...],
    scored: Mapping[str, Split],
    saved_logits: Mapping[str, Tensor],
    adjustment: Adjustment,
) -> Decided:
    """Choose the thresholds on the held-out sentences, score every split, and log the calibration
    and the thresholds.

    Args:
        labels: Names of the classes.
        scored: The splits besides train.
        saved_logits: By split the (N, classes) logits of the saved weights.
    """
    before = {name: adjustment.uncalibrated(logits) for name, logits in saved_logits.items()}
    after = {name: logits / adjustment.temperature for name, logits in before.items()}
    calibration = _calibration(scored, before, adjustment.temperature)
    decision = _choose_thresholds(settings, labels, scored, after)
    offsets, threshold = decision.get("offsets"), decision.get("threshold", 0.0)
    scores = {
        name: evaluation(
            after[name], split.labels, split.sources, offsets=offsets, threshold=threshold
        )
        for name, split in scored.items()
    }
    shift = 0 if offsets is None else np.array(offsets)
    predicted = {name: (logits + shift).argmax(1) for name, logits in after.items()}
    by_split = {name: probabilities(logits) for name, logits in after.items()}
    return Decided(by_split, predicted, scores, calibration, decision)


def _calibration(
    scored: Mapping[str, Split], before: Mapping[str, np.ndarray], temperature: float
) -> dict[str, Any]:
    """Return, and log, how reliable the probabilities are before and after the division of the
    logits `before` by `temperature`; {} without one."""
    if temperature == 1:
        return {}
    splits: dict[str, Any] = {}
    for name, split in scored.items():
        splits[name] = {
            "before": _describe_bins(reliability(before[name], split.labels)),
            "after": _describe_bins(reliability(before[name] / temperature, split.labels)),
        }
    errors = ", ".join(
        f"{SPLIT_TITLES[name]} {100 * s['before']['ece']:.1f} % -> {100 * s['after']['ece']:.1f} %"
        for name, s in splits.items()
    )
    n = len(scored["holdout"])
    logger.info(
        f"calibrated on {n} held-out sentences: temperature {temperature:.2f}; expected "
        f"calibration error: {errors}"
    )
    return {"temperature": temperature, "sentences": n, "splits": splits}


def _describe_bins(bins: Reliability) -> dict[str, Any]:
    lists = {name: values.tolist() for name, values in asdict(bins).items()}
    return {"ece": calibration_error(bins)} | lists


def _choose_thresholds(
    settings: DecisionSettings,
    labels: tuple[str, ...],
    scored: Mapping[str, Split],
    logits: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Return what config.json says of the thresholds that reach the goal, and log it; {} without
    a goal."""
    goal = parse_goal(settings.goal)
    if goal is None:
        return {}
    holdout = scored["holdout"]
    label = labels.index(goal.label) if goal.label else None
    decision = decide(goal, logits["holdout"], holdout.labels, label)
    reached = _describe_reached(goal, decision, logits["holdout"], holdout.labels, label)
    line = f"goal {settings.goal}, on {len(holdout)} held-out sentences: {reached}"
    if decision.offsets.any():
        line += f"; {_describe_offsets(decision.offsets, labels)}"
    logger.info(line if decision.reached else f"{line}; the value asked for is out of reach")
    return {
        "goal": settings.goal,
        "offsets": decision.offsets.tolist(),
        "threshold": decision.threshold,
        "reached": decision.reached,
        "sentences": len(holdout),
    }


def _describe_reached(
    goal: Goal, decision: Decision, logits: np.ndarray, labels: list[int], label: int | None
) -> str:
    after = evaluation(logits, labels, offsets=decision.offsets)
    if goal.measure in MEASURES:
        before = evaluation(logits, labels)
        return f"{before[goal.measure]:.3f} -> {after[goal.measure]:.3f}"
    if label is not None:
        precision, recall = (after["classes"][name][label] for name in ("precision", "recall"))
        return f"precision {100 * precision:.1f} %, recall {100 * recall:.1f} %"
    answered = probabilities(logits).max(1) >= decision.threshold
    right = (logits.argmax(1) == np.asarray(labels))[answered]
    return (
        f"{100 * answered.mean():.1f} % are answered, those with a probability from "
        f"{decision.threshold:.3f} on, and {100 * right.mean():.1f} % of these right"
    )


def _describe_offsets(offsets: np.ndarray, labels: tuple[str, ...]) -> str:
    if len(labels) == 2:
        # The second class where its log-odds plus the difference of the offsets are above 0.
        threshold = 1 / (1 + np.exp(offsets[1] - offsets[0]))
        return f"{labels[1]} from probability {threshold:.3f} on"
    moved = [f"{n} {o:+.2f}" for n, o in zip(labels, offsets.tolist(), strict=True) if o]
    return f"added to the log-probabilities: {shortened(moved)}"


def no_bias(classes: int) -> Tensor:
    """Return the bias of an adjustment without one."""
    return torch.zeros(classes)

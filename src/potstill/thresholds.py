"""The thresholds that reach a goal on held-out sentences.

Of a goal without a class, precision is the fraction of the answered sentences that are answered
right, recall that of all sentences, and the threshold is the probability below which there is no
answer. The others are reached by `offsets`: (classes,) numbers that are added to the logits, or to
the logarithms of the probabilities, to decide on a class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from potstill.calibration import TopTwo, probabilities
from potstill.goals import MEASURES, Goal
from potstill.metrics import mcc_of_margins

MAX_CANDIDATES = 200  # thresholds that are tried for a class in one round
ROUNDS = 20


@dataclass(frozen=True)
class Decision:
    """What reaches a goal.

    Args:
        offsets: (classes,) added to the logits to decide on a class; zeros for none.
        threshold: The highest probability below which a sentence is not answered; 0 for none.
        reached: False if precision or recall stayed below the least value.
    """

    offsets: np.ndarray
    threshold: float = 0.0
    reached: bool = True


def decide(goal: Goal, logits: np.ndarray, labels: Sequence[int], label: int | None) -> Decision:
    """Return what reaches `goal` on (N, classes) logits, which should be held out and calibrated.

    Args:
        labels: N class indices.
        label: Index of the goal's class, if it has one.
    """
    logits, truth = np.asarray(logits, np.float64), np.asarray(labels, int)
    if goal.measure in MEASURES:
        return Decision(_offsets(MEASURE_OF_MARGINS[goal.measure], logits, truth))
    if label is None:
        confidence = probabilities(logits).max(1)
        right = logits.argmax(1) == truth
        threshold, reached = _threshold(goal, confidence, right, len(truth))
        return Decision(np.zeros(logits.shape[1]), max(threshold, 0.0), reached)
    margin = logits[:, label] - np.delete(logits, label, axis=1).max(1)
    is_label = truth == label
    threshold, reached = _threshold(goal, margin, is_label, int(is_label.sum()))
    offsets = np.zeros(logits.shape[1])
    offsets[label] = -threshold
    return Decision(offsets, reached=reached)


def _threshold(
    goal: Goal, scores: np.ndarray, right: np.ndarray, wanted: int
) -> tuple[float, bool]:
    """Return the score from which to accept, and whether the least value is kept.

    Args:
        scores: (N,) the higher, the sooner accepted.
        right: (N,) bool, whether accepting is right.
        wanted: The number that recall is a fraction of.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores together
    hits = np.cumsum(right[order])[ends]
    precision, recall = hits / (ends + 1), hits / max(wanted, 1)
    by_name = {"precision": precision, "recall": recall}
    best = by_name.pop(goal.measure)
    (other,) = by_name.values()
    allowed = other >= goal.least
    if not allowed.any():
        allowed = other == other.max()
    # Of equals the one that accepts most, halfway to the next score; below the last if that is all.
    candidates = np.flatnonzero(allowed & (best == best[allowed].max()))
    chosen = ends[candidates[-1]]
    last = scores[order[chosen]]
    following = scores[order[chosen + 1]] if chosen + 1 < len(scores) else last - 1
    return float((last + following) / 2), bool((other >= goal.least).any())


def _offsets(
    measure: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    logits: np.ndarray,
    truth: np.ndarray,
) -> np.ndarray:
    """Return the (classes,) offsets with the greatest measure, found class by class.

    The first class keeps 0, as only differences count. An offset moves only where that gains.
    """
    classes = logits.shape[1]
    actual = np.bincount(truth, minlength=classes)
    shifted, offsets = TopTwo(logits), np.zeros(classes)
    best = -np.inf
    for _ in range(ROUNDS):
        before = best
        for label in range(1, classes):
            # `label` is predicted where its offset is above these.
            turns = shifted.greatest_without(label) - logits[:, label]
            others = shifted.arg_greatest_without(label)
            candidates = _candidates(turns, offsets[label])
            taken = np.searchsorted(candidates, turns, side="right")  # by these and those above
            steps = np.zeros((2, len(candidates) + 1, classes))
            np.add.at(steps[0], (taken, others), -1)
            np.add.at(steps[0], (taken, label), 1)
            right_before, right_after = others == truth, truth == label
            np.add.at(steps[1], (taken[right_before], others[right_before]), -1)
            np.add.at(steps[1], (taken[right_after], label), 1)
            start = [
                np.bincount(others, minlength=classes),
                np.bincount(others[right_before], minlength=classes),
            ]
            predicted, correct = (
                first + np.cumsum(step, axis=0)[:-1]
                for first, step in zip(start, steps, strict=True)
            )
            values = measure(correct, np.broadcast_to(actual, correct.shape), predicted)
            current = float(values[np.searchsorted(candidates, offsets[label])])
            best = max(best, current)
            top = np.flatnonzero(values >= values.max() - 1e-12)
            if values.max() > current + 1e-12:
                nearest = top[np.abs(candidates[top] - offsets[label]).argmin()]
                offsets[label], best = candidates[nearest], float(values.max())
                shifted.replace(label, logits[:, label] + offsets[label])
        if best <= before + 1e-12:
            break
    return offsets


def _candidates(turns: np.ndarray, current: float) -> np.ndarray:
    """Return sorted offsets between the turning points, at most MAX_CANDIDATES and the current."""
    points = np.unique(turns)
    if len(points) > MAX_CANDIDATES:
        points = points[np.linspace(0, len(points) - 1, MAX_CANDIDATES).astype(int)]
    ends = (points[0] - 1, *((points[1:] + points[:-1]) / 2), points[-1] + 1)
    return np.union1d(ends, current)


def _macro_f1(correct: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    occurs = actual + predicted > 0
    f1 = 2 * correct / np.maximum(actual + predicted, 1)
    return f1.sum(-1) / np.maximum(occurs.sum(-1), 1)


# Of (K, classes) correct predictions, labels and predictions of each class.
MEASURE_OF_MARGINS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mcc": lambda correct, actual, predicted: mcc_of_margins(correct.sum(-1), actual, predicted),
    "accuracy": lambda correct, actual, predicted: correct.sum(-1) / actual.sum(-1),
    "macro_f1": _macro_f1,
}

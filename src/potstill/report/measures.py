"""What a report measures on the predictions of a split."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from potstill.report.predictions import Prediction

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence is in one bin of the reliability diagram."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class LabelError:
    """A sentence whose label is likely to be wrong, and the class that it is more likely of."""

    prediction: Prediction
    suggested: str


def reliability_bins(predictions: Sequence[Prediction], bins: int = BINS) -> list[Bin]:
    """Return the bins of equal width over 0 to 1; an empty one is all zeros.

    Guo et al. 2017, *On Calibration of Modern Neural Networks*, section 2; a bin holds its upper
    end.
    """
    confidence = np.array([p.confidence for p in predictions])
    right = np.array([p.predicted == p.label for p in predictions])
    indices = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for index in range(bins):
        inside = indices == index
        count = int(inside.sum())
        means = (float(values[inside].mean()) if count else 0.0 for values in (confidence, right))
        found.append(Bin(count, *means))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error (ECE; Guo et al. 2017, equation 3)."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / total


def confident_mistakes(predictions: Sequence[Prediction], limit: int) -> list[Prediction]:
    """Return the wrong answers that the model was surest of."""
    wrong = [p for p in predictions if p.predicted != p.label]
    return sorted(wrong, key=lambda p: -p.confidence)[:limit]


def likely_label_errors(predictions: Sequence[Prediction]) -> list[LabelError]:
    """Return the sentences that confident learning takes for mislabelled, the likeliest first.

    A sentence counts where a class other than its label is at least as probable as that class is
    on average among the sentences labelled so, while its label is not; the classes that are that
    probable are compared by their probabilities (Northcutt, Jiang and Chuang 2021, *Confident
    Learning: Estimating Uncertainty in Dataset Labels*, section 3.1). They are ordered by the
    margin between the two (section 3.2, "prune by noise rate").

    The probabilities must be of a model that has not learnt from these sentences.
    """
    own: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        own[prediction.label].append(prediction.probabilities[prediction.label])
    thresholds = {label: float(np.mean(values)) for label, values in own.items()}
    errors = []
    for prediction in predictions:
        confident = {
            label: probability
            for label, probability in prediction.probabilities.items()
            if label in thresholds and probability >= thresholds[label]
        }
        suggested = max(confident, key=lambda label: confident[label], default=prediction.label)
        if suggested != prediction.label:
            errors.append(LabelError(prediction, suggested))
    return sorted(errors, key=_margin, reverse=True)


def _margin(error: LabelError) -> float:
    probabilities = error.prediction.probabilities
    return probabilities[error.suggested] - probabilities[error.prediction.label]

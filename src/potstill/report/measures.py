"""What a report measures on the predictions of a split."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from potstill.calibration import Reliability, reliability_of
from potstill.report.predictions import Prediction


@dataclass(frozen=True)
class LabelError:
    """A sentence whose label is likely to be wrong, and the class that it is more likely of."""

    prediction: Prediction
    suggested: str


def reliability_of_predictions(predictions: Sequence[Prediction]) -> Reliability:
    """Return how often the answers are right, by how probable they were held."""
    confidence = np.array([p.confidence for p in predictions])
    right = np.array([p.predicted == p.label for p in predictions])
    return reliability_of(confidence, right)


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

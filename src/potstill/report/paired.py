"""Whether two models differ on the same sentences: McNemar's test and the paired bootstrap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from potstill.metrics import confusion_counts, mcc

RESAMPLES = 10_000
NUMBERS_AT_ONCE = 4_000_000  # of a chunk of resamples


@dataclass(frozen=True)
class Comparison:
    """Two models, A and B, on the same sentences.

    Args:
        only_a: Sentences that A alone classifies correctly.
        only_b: Sentences that B alone classifies correctly.
        mcnemar_p: Two-sided p-value of their accuracies being equal.
        accuracy: Difference of the accuracies, B - A, with its 95 % interval.
        mcc: Difference of the MCCs, B - A, with its 95 % interval.
    """

    only_a: int
    only_b: int
    mcnemar_p: float
    accuracy: tuple[float, float, float]
    mcc: tuple[float, float, float]


def compare(labels: Sequence[int], a: Sequence[int], b: Sequence[int], classes: int) -> Comparison:
    """Compare the answers of two models.

    McNemar's test is the exact binomial one (Dietterich 1998, *Approximate Statistical Tests for
    Comparing Supervised Classification Learning Algorithms*, section 3.1). Intervals are
    percentiles of the paired bootstrap, which draws sentences with the answers of both models
    (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, section 13.3).

    Args:
        labels: N class indices.
        a: N answers of A.
        b: N answers of B.
        classes: Number of classes.
    """
    from scipy.stats import binomtest

    truth, of_a, of_b = (np.asarray(values, int) for values in (labels, a, b))
    only_a = int(((of_a == truth) & (of_b != truth)).sum())
    only_b = int(((of_b == truth) & (of_a != truth)).sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    # The counts of drawn sentences are multinomial over the cells that occur.
    cells, counts = np.unique(np.stack([truth, of_a, of_b]), axis=1, return_counts=True)
    generator = np.random.default_rng(0)
    chunk = max(1, NUMBERS_AT_ONCE // (len(counts) + 3 * classes))
    accuracies, mccs = [], []
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        drawn = generator.multinomial(len(truth), counts / len(truth), size)
        right, mcc_a = _scores(drawn, cells[0], cells[1], classes)
        right_b, mcc_b = _scores(drawn, cells[0], cells[2], classes)
        accuracies.append(right_b - right)
        mccs.append(mcc_b - mcc_a)
    matrices = [confusion_counts(truth.tolist(), x.tolist(), classes) for x in (of_a, of_b)]
    difference = float(mcc(matrices[1]) - mcc(matrices[0]))
    return Comparison(
        only_a,
        only_b,
        float(p),
        ((only_b - only_a) / len(truth), *_interval(accuracies)),
        (difference, *_interval(mccs)),
    )


def _interval(values: list[np.ndarray]) -> tuple[float, float]:
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return float(low), float(high)


def _scores(
    drawn: np.ndarray, truth: np.ndarray, answers: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (R,) accuracies and MCCs of R resamples, (R, cells) counts of the cells that have
    these labels and answers.

    The MCC from its margins, as in `metrics.mcc`, without (R, classes, classes) matrices.
    """
    total = drawn.sum(1, dtype=np.float64)
    right = drawn[:, truth == answers].sum(1).astype(np.float64)
    actual, predicted = (drawn @ np.eye(classes)[indices] for indices in (truth, answers))
    covariance = right * total - (actual * predicted).sum(1)
    spread = (total**2 - (actual**2).sum(1)) * (total**2 - (predicted**2).sum(1))
    values = np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)
    return right / total, values

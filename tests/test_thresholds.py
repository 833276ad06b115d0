"""Thresholds against scikit-learn's curves and exhaustive search."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_curve

from potstill.calibration import probabilities
from potstill.errors import UsageError
from potstill.goals import Goal, parse_goal
from potstill.thresholds import Decision, decide

SCORES = {
    "mcc": matthews_corrcoef,
    "accuracy": accuracy_score,
    "macro_f1": lambda truth, predicted: f1_score(truth, predicted, average="macro"),
}


def draw(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a classifier that predicts the rare classes too seldom, and labels."""
    rng = np.random.default_rng(seed)
    frequencies = np.geomspace(1, 8, classes)
    labels = rng.choice(classes, n, p=frequencies / frequencies.sum())
    logits = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels] + np.log(frequencies)
    return logits, labels


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("none", None),
        ("mcc", Goal("mcc")),
        ("macro_f1", Goal("macro_f1")),
        ("precision@0.9", Goal("precision", 0.9)),
        ("recall@.95:very bad", Goal("recall", 0.95, "very bad")),
        ("recall@1:a:b", Goal("recall", 1.0, "a:b")),
    ],
)
def test_goals_are_read(text, goal):
    assert parse_goal(text) == goal


@pytest.mark.parametrize(
    "text", ["", "f1", "precision", "recall@", "recall@0", "recall@1.1", "mcc@1"]
)
def test_what_is_no_goal_is_refused(text):
    with pytest.raises(UsageError, match=r"`goal`.*is not known.*precision@R"):
        parse_goal(text)


@pytest.mark.parametrize("measure", SCORES)
def test_the_threshold_of_two_classes_is_the_best_there_is(measure):
    for seed in range(4):
        logits, labels = draw(120, 2, seed)
        offsets = decide(Goal(measure), logits, labels, None).offsets
        score = SCORES[measure]
        reached = score(labels, (logits + offsets).argmax(1))
        turns = np.sort(logits[:, 0] - logits[:, 1])
        tried = [turns[0] - 1, *(turns[1:] + turns[:-1]) / 2, turns[-1] + 1]
        best = max(score(labels, (logits + np.array([0, t])).argmax(1)) for t in tried)
        assert reached == pytest.approx(best)


@pytest.mark.parametrize("measure", SCORES)
def test_no_single_offset_of_many_classes_could_be_better(measure):
    logits, labels = draw(150, 5, 7)
    score = SCORES[measure]
    offsets = decide(Goal(measure), logits, labels, None).offsets
    reached = score(labels, (logits + offsets).argmax(1))
    assert offsets[0] == 0
    assert reached > score(labels, logits.argmax(1))
    for label in range(1, 5):
        for value in np.linspace(-6, 6, 81):
            moved = offsets.copy()
            moved[label] = value
            assert score(labels, (logits + moved).argmax(1)) <= reached + 1e-9


def test_nothing_moves_where_nothing_is_gained():
    logits = np.array([[2.0, 0], [0, 3], [1, 0], [0, 1]])
    for measure in SCORES:
        assert decide(Goal(measure), logits, [0, 1, 0, 1], None).offsets.tolist() == [0, 0]


def test_many_sentences_and_classes_take_bounded_time_and_memory():
    logits, labels = draw(20_000, 40, 3)
    offsets = decide(Goal("macro_f1"), logits, labels, None).offsets
    plain, moved = (
        f1_score(labels, z.argmax(1), average="macro") for z in (logits, logits + offsets)
    )
    assert moved > plain


@pytest.mark.parametrize("least", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("classes", [2, 4])
def test_precision_and_recall_of_a_class_are_scikit_learns(classes, least):
    logits, labels = draw(300, classes, 5)
    margin = logits[:, 0] - logits[:, 1:].max(1)
    precision, recall, _ = precision_recall_curve(labels == 0, margin)
    precision, recall = precision[:-1], recall[:-1]
    for measure, best in (
        ("precision", precision[recall >= least].max()),
        ("recall", recall[precision >= least].max(initial=0)),
    ):
        decision = decide(Goal(measure, least, "x"), logits, labels, 0)
        predicted = (logits + decision.offsets).argmax(1) == 0
        hits = (predicted & (labels == 0)).sum()
        reached = {"precision": hits / predicted.sum(), "recall": hits / (labels == 0).sum()}
        if best:
            assert decision.reached
            assert reached.pop(measure) == pytest.approx(best)
            assert min(reached.values()) >= least
        assert decision.threshold == 0


@pytest.mark.parametrize("least", [0.6, 0.8, 0.9])
def test_below_the_threshold_the_rest_is_right_often_enough(least):
    logits, labels = draw(400, 3, 6)
    confidence, right = probabilities(logits).max(1), logits.argmax(1) == labels
    decision = decide(Goal("recall", least), logits, labels, None)
    answered = confidence >= decision.threshold
    assert right[answered].mean() >= least
    assert not decision.offsets.any()
    for threshold in confidence[~answered]:  # no lower one would be
        assert right[confidence >= threshold].mean() < least

    decision = decide(Goal("precision", least), logits, labels, None)
    answered = confidence >= decision.threshold
    if decision.reached:
        assert right[answered].sum() / len(labels) >= least
    else:
        assert right[answered].sum() == right.sum() < least * len(labels)


def test_a_goal_out_of_reach_says_so():
    logits = np.array([[2.0, 0], [1, 0], [0.5, 0]])
    assert decide(Goal("recall", 0.9), logits, [1, 1, 0], None).reached is False
    assert decide(Goal("recall", 1.0), logits, [0, 0, 0], None) is not None
    everything = decide(Goal("recall", 1.0), logits, [0, 0, 0], None)
    assert (everything.threshold <= probabilities(logits).max(1)).all()
    assert isinstance(everything, Decision) and everything.reached

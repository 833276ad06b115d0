"""The epoch that is chosen."""

import numpy as np
import pytest

from potstill.data.batching import LabelledDataset
from potstill.metrics import confusion_counts, mcc_standard_error, score
from potstill.training.distributed import predict_logits
from potstill.training.history import choose_epoch
from tests.training.toy import HOLDOUT, Run, student


def metrics(epoch, mcc, se=0.04, dev=0.0):
    return {"epoch": epoch, "holdout": {"mcc": mcc, "mcc_se": se}, "dev": {"mcc": dev}}


@pytest.mark.parametrize(
    ("history", "chosen"),
    [
        ([metrics(1, 0.1), metrics(2, 0.3), metrics(3, 0.2)], 2),
        ([metrics(1, 0.3, dev=0.1), metrics(2, 0.2, dev=0.9)], 1),
        ([metrics(1, 0.2), metrics(2, 0.3), metrics(3, 0.27), metrics(4, 0.25)], 3),
        ([metrics(1, 0.28), metrics(2, 0.3), metrics(3, 0.2)], 2),
        ([metrics(1, 0.3, 0.01), metrics(2, 0.28, 0.05)], 1),
        ([metrics(1, 0.3, 0), metrics(2, 0.3, 0)], 2),
        ([metrics(1, -0.5), metrics(2, -0.1)], 2),
    ],
    ids=[
        "the best",
        "not dev's",
        "the latest within its standard error",
        "not an earlier one",
        "the standard error is the best's",
        "the latest of equals",
        "below 0",
    ],
)
def test_chosen_epoch(history, chosen):
    assert choose_epoch(history) == chosen


def test_the_chosen_epoch_changes_only_to_the_newest():
    """So that the tensors of one epoch are all that is to be kept."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        history, before = [], 0
        for epoch in range(1, 9):
            history.append(metrics(epoch, rng.uniform(-0.1, 0.5), rng.uniform(0, 0.2)))
            chosen = choose_epoch(history)
            assert chosen in (before, epoch)
            before = chosen


def test_without_holdout_the_last_epoch_is_chosen():
    history = [metrics(1, 0, dev=0.9), metrics(2, 0, dev=0.1)]
    for one in history:
        del one["holdout"]
    assert choose_epoch(history) == 2


def test_restore_loads_the_weights_of_the_best_epoch_on_holdout(tmp_path):
    # Labels turned round on the held-out slice: the less is learnt, the better it scores there.
    contrary = LabelledDataset(HOLDOUT.tokens, [1 - label for label in HOLDOUT.labels])
    slices = {"holdout": contrary, "dev": HOLDOUT}
    run = Run(tmp_path / "s", epochs=5, model=student(), evaluations=slices)
    assert run.trained.chosen_epoch < 5
    by_dev = max(run.trained.history, key=lambda r: r["dev"]["mcc"])["epoch"]
    assert run.trained.chosen_epoch != by_dev
    held = [r["holdout"]["mcc"] for r in run.trained.history]
    assert run.trained.chosen_metrics["holdout"]["mcc"] == max(held)
    run.trained.restore(run.model)
    logits = predict_logits(run.model, contrary.tokens).numpy()
    counts = confusion_counts(contrary.labels, logits.argmax(1).tolist(), 2)
    expected = score(logits, contrary.labels) | {"mcc_se": mcc_standard_error(counts)}
    assert run.trained.chosen_metrics["holdout"] == expected

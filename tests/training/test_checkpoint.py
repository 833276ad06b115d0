"""Runs that are resumed, and the epoch that is chosen."""

import json
from dataclasses import replace

import numpy as np
import pytest

from potstill.data.batching import LabelledDataset
from potstill.errors import UserError
from potstill.metrics import confusion_counts, mcc_standard_error, score
from potstill.training.checkpoint import choose_epoch
from potstill.training.distributed import predict_logits
from potstill.training.losses import classification_loss
from tests.training.toy import HOLDOUT, SETTINGS, Run, equal, student


def interrupted_after_epoch(number):
    def report(metrics):
        if metrics["epoch"] == number:
            raise KeyboardInterrupt

    return {"report": report}


def interrupted_in_batch(sentences):
    left = [sentences]

    def loss(logits, batch):
        left[0] -= len(batch)
        if left[0] < 0:
            raise KeyboardInterrupt
        return classification_loss(logits, batch)

    return {"loss_function": loss}


@pytest.mark.parametrize(
    ("interrupted", "number"),
    [(interrupted_after_epoch, 1), (interrupted_after_epoch, 3), (interrupted_in_batch, 150)],
    ids=["after the first epoch", "after the last but one", "in the third"],
)
@pytest.mark.parametrize("microbatch_tokens", [None, 12])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path, interrupted, number, microbatch_tokens
):
    options = {"epochs": 4, "microbatch_tokens": microbatch_tokens}
    whole = Run(tmp_path / "whole", **options)
    folder = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        Run(folder, **options, **interrupted(number))
    before = len(json.loads((folder / "state.json").read_text())["records"])
    resumed = Run(folder, replace(SETTINGS, resume=True), model=student(dropout=0.2), **options)
    assert [metrics["epoch"] for metrics in resumed.reported] == list(range(before + 1, 5))
    assert 0 < before < 4
    assert equal(resumed.trained.tensors, whole.trained.tensors)
    last = dict(resumed.model.named_parameters())
    assert equal(last, dict(whole.model.named_parameters()))
    assert resumed.trained.chosen_epoch == whole.trained.chosen_epoch
    without_clocks = [
        [{k: v for k, v in r.items() if not k.startswith("se")} for r in run.trained.history]
        for run in (resumed, whole)
    ]
    assert without_clocks[0] == without_clocks[1]


def test_resume_after_the_last_epoch_does_not_train(tmp_path):
    whole = Run(tmp_path / "s")
    again = Run(tmp_path / "s", replace(SETTINGS, resume=True))
    assert again.reported == []
    assert equal(again.trained.tensors, whole.trained.tensors)


def test_resume_with_other_settings_is_refused(tmp_path):
    identity = {"lr": 0.02, "betas": (0.9, 0.999)}
    Run(tmp_path / "s", epochs=1, identity=identity)
    resume = replace(SETTINGS, resume=True)
    Run(tmp_path / "s", resume, epochs=1, identity=identity)
    with pytest.raises(UserError, match=r"`resume`: .*lr 0\.02, not 0\.03"):
        Run(tmp_path / "s", resume, epochs=1, identity=identity | {"lr": 0.03})
    with pytest.raises(UserError, match=r"`resume`: .*had lr 0\.02, not None"):
        Run(tmp_path / "s", resume, epochs=1, identity={"betas": (0.9, 0.999)})


def test_resume_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="no interrupted run"):
        Run(tmp_path / "s", replace(SETTINGS, resume=True))


def test_checkpoint_can_be_removed(tmp_path):
    run = Run(tmp_path / "s", epochs=1)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    run.checkpoint.remove()
    assert not list(tmp_path.iterdir())


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

"""Training for so many minutes."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest

from potstill.training import loop, time_limit
from potstill.training.optim import adamw, current_lr
from potstill.training.time_limit import TimeLimit
from tests.training.test_checkpoint import interrupted_after_epoch
from tests.training.toy import SETTINGS, Run, equal


@pytest.fixture
def minutes_of_epochs(monkeypatch):
    """Set how many minutes the epochs take, in turn, and the last for ever."""

    def set_minutes(*minutes):
        endless = itertools.chain(minutes, itertools.repeat(minutes[-1]))
        seconds = itertools.accumulate((60 * m for m in endless), initial=0)
        clock = SimpleNamespace(monotonic=lambda: next(seconds))
        monkeypatch.setattr(time_limit, "time", clock)

    return set_minutes


def limited(minutes):
    return replace(SETTINGS, minutes=minutes)


@pytest.mark.parametrize(
    ("minutes", "taken", "expected"),
    [
        (None, [9], [10] * 10),
        (100, [9], [10] * 10),
        (5, [1], [5] * 5),
        (4.4, [1], [4] * 4),
        (10, [1, 1, 3], [10, 10, 6, 5, 5]),  # the machine gets slower
        (1, [7], [1]),
    ],
)
def test_epochs_that_there_is_no_time_for_are_left_out(
    tmp_path, minutes_of_epochs, minutes, taken, expected
):
    minutes_of_epochs(*taken)
    run = Run(tmp_path / "state", limited(minutes), epochs=10)
    assert len(run.trained.history) == len(expected)
    if minutes:
        assert [metrics["epochs"] for metrics in run.trained.history] == expected
    else:
        assert "epochs" not in run.trained.history[0]


def test_the_rate_falls_to_zero_all_the_same(tmp_path, minutes_of_epochs, monkeypatch):
    minutes_of_epochs(1)
    optimizers, rates = [], []

    def remembered(*arguments):
        optimizers.append(adamw(*arguments))
        return optimizers[0]

    def report(metrics):
        rates.append(current_lr(optimizers[0]) / SETTINGS.lr)

    monkeypatch.setattr(loop, "adamw", remembered)
    Run(tmp_path / "state", limited(5), epochs=10, report=report)
    # After the first epoch it falls from 9 tenths to 0 within four, not nine.
    assert len(rates) == 5 and rates[0] > 0.85
    assert rates[-1] < 0.05 and rates == sorted(rates, reverse=True)


def test_a_resumed_run_ends_where_the_other_was_to_end(tmp_path, minutes_of_epochs):
    minutes_of_epochs(1)
    whole = Run(tmp_path / "whole", limited(5), epochs=10)
    minutes_of_epochs(1)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "halves", limited(5), epochs=10, **interrupted_after_epoch(3))
    minutes_of_epochs(0.1)
    again = Run(tmp_path / "halves", limited(5), epochs=10)
    assert len(again.trained.history) == len(whole.trained.history) == 5
    assert equal(again.trained.tensors, whole.trained.tensors)


def test_what_was_decided_is_in_the_metrics():
    history = [{"epoch": n, "seconds": 1.0, "epochs": e} for n, e in enumerate([9, 7, 7, 6], 1)]
    limit = TimeLimit(1.0, 9, history)
    assert limit.cuts == [(2, 7), (4, 6)] and limit.epochs == 6

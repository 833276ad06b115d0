"""What `make` plans for the time that it has."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from potstill.data.corpus import load_corpus
from potstill.data.splits import Split
from potstill.decoder.hub import find_base_model
from potstill.recipes import _budget, _speed
from potstill.recipes._budget import FEWEST, Plan, Sizes, make_plan, plan_passes, student_epochs
from potstill.recipes._speed import Rates, measure

CPU = Rates(tuning=70.0, labelling=150.0, student=1400.0, student_alone=2000.0, loading=6.0)
GPU = Rates(tuning=3e3, labelling=9e3, student=1e5, student_alone=1.2e5, loading=4.0)
LAPTOP = Rates(tuning=8.0, labelling=28.0, student=180.0, student_alone=300.0, loading=0.7)
COLA = Sizes(train=8123, scored=1471, final=527)


def total(plan: Plan) -> float:
    return sum(plan.seconds.values())


@pytest.mark.parametrize("rates", [CPU, GPU, CPU.slower(3)])
@pytest.mark.parametrize("train", [80, 900, 8000, 200_000])
@pytest.mark.parametrize("minutes", [5, 10, 15, 60, 240])
def test_what_is_planned_fits(rates: Rates, train: int, minutes: int) -> None:
    sizes = replace(COLA, train=train, unlabelled=3000)
    plan = make_plan(60 * minutes, rates, sizes)
    least = make_plan(1e-3, rates, sizes)
    assert total(plan) <= max(60 * minutes, 1.05 * total(least))
    assert min(train, FEWEST) <= plan.train <= train
    assert plan.student_epochs >= 1
    assert (plan.teacher_epochs > 0) == ("teacher" in plan.seconds)


def test_more_time_is_used() -> None:
    plans = [make_plan(60 * minutes, CPU, COLA) for minutes in (4, 8, 15, 60)]
    assert plans[0].train < COLA.train == plans[2].train
    assert [p.teacher_epochs for p in plans] == sorted(p.teacher_epochs for p in plans)
    assert [p.transfer for p in plans] == sorted(p.transfer for p in plans)
    assert plans[3].teacher_epochs == 3
    assert total(plans[3]) > 0.6 * 3600


def test_a_teacher_needs_enough_steps() -> None:
    plan = make_plan(60 * 10, LAPTOP, replace(COLA, train=4400))
    assert plan.teacher_epochs == 0 and plan.transfer == 0
    assert plan.train == 4400 and set(plan.seconds) == {"student", "finish"}
    assert 300 < total(plan) <= 600
    assert make_plan(60 * 60, LAPTOP, replace(COLA, train=4400)).teacher_epochs > 0
    # Few sentences have few steps, and a teacher all the same.
    assert make_plan(60 * 10, LAPTOP, Sizes(train=150, scored=50, final=50)).teacher_epochs == 10


def test_sampling_waits_until_it_pays() -> None:
    assert make_plan(60 * 15, CPU, COLA).sampled == 0
    plan = make_plan(60 * 120, CPU, COLA)
    assert plan.sampled >= _budget.MIN_SAMPLED and plan.edited > 0


def test_the_sentences_of_the_user_come_first() -> None:
    some = make_plan(60 * 30, CPU, replace(COLA, unlabelled=2000))
    assert some.user == 2000 and some.edited > 0
    many = make_plan(60 * 30, CPU, replace(COLA, unlabelled=1_000_000))
    assert 2000 < many.user < 1_000_000 and many.edited + many.sampled == 0


def test_few_sentences_get_more_passes() -> None:
    assert make_plan(900, CPU, replace(COLA, train=100)).teacher_epochs == 10
    assert student_epochs(1e6, 1400.0, 100) == 20
    assert student_epochs(0.0, 1400.0, 100) == 4


def test_a_language_model_before_takes_time_too() -> None:
    """Text that DistilRNN-base has no words for is learnt as a language model first."""
    plans = [make_plan(600, LAPTOP, replace(COLA, init=init)) for init in (True, False)]
    assert plans[0].student_epochs > plans[1].student_epochs >= _budget.MIN_STUDENT_EPOCHS
    assert all(total(plan) <= 600 for plan in plans)
    lm = 6 * _budget.LM_EPOCH * COLA.train / LAPTOP.student_alone
    lost = (plans[0].student_epochs - plans[1].student_epochs) * COLA.train / LAPTOP.student_alone
    assert abs(lost - lm) < COLA.train / LAPTOP.student_alone


def test_a_machine_that_was_measured_too_slow_still_uses_its_time() -> None:
    """Epochs can be left out, not added: those of the plan would suit a faster machine."""
    plan = Plan(5000, 0, 4, 0, 0, 0, {})
    begun = plan_passes(plan, 100.0, 500.0, transfer_set=False, init=True)
    assert begun.student_epochs == 20 and 60 * (begun.student_minutes or 0) == pytest.approx(
        95, 0.01
    )
    assert student_epochs(100.0, 500.0, 5000) == 10
    slow = plan_passes(plan, 100.0, 100.0, transfer_set=False, init=True)
    assert slow.student_epochs == 6
    never = plan_passes(plan, 0.0, 100.0, transfer_set=False, init=False)
    assert never.student_epochs == 4 and 60 * (never.student_minutes or 0) == pytest.approx(1, 0.1)


def test_a_machine_is_measured_with_the_real_models(tiny_gpt2: Path) -> None:
    split = load_corpus("minicola").splits["train"]
    started = time.perf_counter()
    rates = measure(find_base_model(str(tiny_gpt2)), split, 2, max_length=64, patience=1.0)
    seconds = time.perf_counter() - started
    assert 0 < rates.loading < seconds
    # A pass over its sentences took no longer than all of it.
    assert rates.tuning > 16 / seconds and rates.labelling > 64 / seconds
    assert rates.student > 64 / seconds and rates.student_alone > 64 / seconds


@pytest.mark.parametrize(("rate", "measured"), [(1.0, [16]), (100.0, [16, 64])])
def test_a_slow_machine_is_measured_on_few_sentences(rate: float, measured: list[int]) -> None:
    split, seen = load_corpus("minicola").splits["train"], []

    def measure(part: Split) -> float:
        seen.append(len(part))
        return rate + len(part)

    _, longer = _speed.batches_like(split, measured[-1], 32)
    found = _speed._rate(measure, split, (16, 64, 64_000), batch_size=32, patience=3.0)
    assert found == pytest.approx((rate + measured[-1]) / longer)
    assert seen == measured


def test_a_slower_machine_has_lower_rates() -> None:
    slow = CPU.slower(2)
    assert slow == Rates(35, 75, 700, 1000, 12)


def test_speed_is_measured_on_batches_as_a_run_has_them() -> None:
    """A few long texts do not fill batches with padding, but count."""
    lengths = sorted([5 + i % 40 for i in range(1000)] + [600] * 30)
    split = Split(["x" * n for n in lengths], [0] * len(lengths))
    costs = [lengths[i + 63] for i in range(0, len(lengths) - 63, 64)]
    for most in (64, 256):
        part, longer = _speed.batches_like(split, most, 64)
        drawn = [len(text) for text in part.sentences]
        batches = [drawn[i : i + 64] for i in range(0, most, 64)]
        assert len(drawn) == most and max(drawn) < 600
        own = sum(map(max, batches)) / len(batches)
        assert own * longer == pytest.approx(sum(costs) / len(costs))
    assert len(_speed.batches_like(split, 16, 32)[0].sentences) == 16
    few = split.take(range(10))
    part, longer = _speed.batches_like(few, 64, 64)
    assert sorted(part.sentences) == sorted(few.sentences) and longer == 1


@pytest.mark.parametrize(("rate", "measured"), [(1.0, 16), (100.0, 64)])
def test_longer_batches_take_longer(rate: float, measured: int) -> None:
    split = Split(["x" * (10 + i) for i in range(1000)], [0] * 1000)
    _, longer = _speed.batches_like(split, measured, 16)
    assert _speed._rate(
        lambda part: rate, split, (16, 64), batch_size=16, patience=3.0
    ) == pytest.approx(rate / longer)

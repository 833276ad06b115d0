"""Held-out sentences: of every class, never a whole group, copies on one side."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from potstill.data.corpus import load_corpus
from potstill.data.splits import Split, hold_out
from potstill.errors import UserError
from tests.data.conftest import write


def split_of(labels: list[int], **more: list[str]) -> Split:
    return Split([f"Text {i}." for i in range(len(labels))], labels, **more)


@pytest.mark.parametrize("sources", [[], ["a"]])
@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_on_both_sides_in_its_share(seed: int, sources: list[str]) -> None:
    labels = [0] * 30 + [1] * 30 + [2] * 140  # in the order of their classes
    rest, held = hold_out(split_of(labels, sources=sources * 200), 0.1, seed)
    assert len(held) == 20 and len(rest) == 180
    if not sources:
        assert Counter(held.labels) == {0: 3, 1: 3, 2: 14}
    assert Counter(rest.labels).keys() == {0, 1, 2}
    again = hold_out(split_of(labels, sources=sources * 200), 0.1, seed)
    assert again == (rest, held)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sources", [[], ["a"]])
def test_a_rare_class_keeps_a_training_sentence(seed: int, sources: list[str]) -> None:
    for rare in (1, 2, 8):
        labels = [2] * rare + [0, 1] * 50
        rest, held = hold_out(split_of(labels, sources=sources * len(labels)), 0.2, seed)
        assert rest.labels.count(2) >= 1
        assert len(held) == round(0.2 * len(labels))


def test_twenty_classes_of_ten_in_order() -> None:
    labels = [i // 10 for i in range(200)]
    _, held = hold_out(split_of(labels), 0.1, seed=0)
    assert Counter(held.labels) == dict.fromkeys(range(20), 1)


def test_more_classes_than_are_held_out() -> None:
    labels = [i // 3 for i in range(300)]
    rest, held = hold_out(split_of(labels), 0.1, seed=0)
    assert len(held) == 30 and max(Counter(held.labels).values()) == 1
    assert len(set(rest.labels)) == 100


@pytest.mark.parametrize("seed", range(3))
def test_copies_and_groups_stay_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [f"Text {n}." for n in rng.integers(0, 60, 200)]
    labels = rng.integers(0, 2, 200).tolist()
    rest, held = hold_out(Split(texts, labels), 0.2, seed)
    assert not set(rest.sentences) & set(held.sentences)
    groups = [f"user {n}" for n in rng.integers(0, 25, 200)]
    rest, held = hold_out(split_of(labels, groups=groups), 0.2, seed)
    assert not set(rest.groups) & set(held.groups)
    assert 20 <= len(held) <= 40


def test_one_large_group_is_held_out_whole_or_nothing_is() -> None:
    labels = [0, 1] * 20
    _, held = hold_out(split_of(labels, groups=["a"] * 10 + ["b"] * 30), 0.1, seed=0)
    assert set(held.groups) == {"a"} and len(held) == 10
    with pytest.raises(UserError, match="of 40 training sentences none can be held out"):
        hold_out(split_of(labels, groups=["a"] * 40), 0.1, seed=0)


def test_copies_alone_are_held_out_all_the_same() -> None:
    _, held = hold_out(Split(["Yes.", "No."] * 20, [1, 0] * 20), 0.1, seed=0)
    assert Counter(held.labels) == {0: 2, 1: 2}


def test_a_column_of_groups_is_read() -> None:
    rows = "".join(f"user {i // 4},Text {i}.,{'ab'[i % 2]}\n" for i in range(80))
    write("x.csv", "user,text,label\n" + rows)
    corpus = load_corpus("x.csv", group_column="User")
    train, dev = corpus.splits["train"], corpus.splits["dev"]
    assert len(dev) == 8 and not set(train.groups) & set(dev.groups)
    assert dev.lines == [int(text.split()[1][:-1]) + 2 for text in dev.sentences]
    with pytest.raises(UserError, match=r"has no column 'owner' \(`group_column`\)"):
        load_corpus("x.csv", group_column="owner")


def test_a_test_file_is_a_split_of_its_own() -> None:
    Path("task").mkdir()
    for name in ("train", "test"):
        rows = "".join(f"{name} {i}.,{'ab'[i % 2]}\n" for i in range(20))
        write(f"task/{name.upper()}.csv", "text,label\n" + rows)
    sizes = {name: len(split) for name, split in load_corpus("task").splits.items()}
    assert sizes == {"train": 18, "dev": 2, "test": 20}

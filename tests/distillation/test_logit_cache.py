"""The teacher's logits, cached by sentence."""

import numpy as np
import pytest
import torch

from potstill.distillation.logit_cache import LogitCache, label_sentences
from potstill.errors import UserError
from potstill.files import cache_folder


class Teacher:
    """Labels a sentence by its length and its first letter; counts how often it is asked."""

    def __init__(self, gives_up_after: int | None = None):
        self.asked: list[str] = []
        self.left = gives_up_after

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.asked += sentences
        return teacher_logits(sentences)


def teacher_logits(sentences: list[str]) -> torch.Tensor:
    return torch.tensor([[len(s) + 0.1, ord(s[0]) - 0.3] for s in sentences])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))


SENTENCES = ["b longer", "a", "ccc", "a", "b longer", "d’s «é»\t'\"", "e"]


def test_logits_are_in_the_order_of_the_sentences():
    logits, computed = label_sentences(SENTENCES, LogitCache("t"), Teacher(), chunk=2)
    assert torch.equal(torch.stack(logits), teacher_logits(SENTENCES))
    assert logits[0].dtype == torch.float32
    assert computed == 5


def test_each_sentence_is_labelled_once():
    teacher = Teacher()
    label_sentences(SENTENCES, LogitCache("t"), teacher)
    assert sorted(teacher.asked) == sorted(set(SENTENCES))
    again, computed = label_sentences(["new", *SENTENCES], LogitCache("t"), teacher)
    assert computed == 1
    assert sorted(teacher.asked) == sorted({*SENTENCES, "new"})
    assert torch.equal(torch.stack(again), teacher_logits(["new", *SENTENCES]))


def test_an_interrupted_run_keeps_what_was_labelled():
    sentences = [f"{'x' * i}y" for i in range(10)]
    with pytest.raises(KeyboardInterrupt):
        label_sentences(sentences, LogitCache("t"), Teacher(gives_up_after=2), chunk=3)
    teacher = Teacher()
    logits, computed = label_sentences(sentences, LogitCache("t"), teacher, chunk=3)
    assert computed == len(teacher.asked) == 4
    assert torch.equal(torch.stack(logits), teacher_logits(sentences))


def test_more_sentences_than_one_query_holds():
    sentences = [f"s{i}" for i in range(1203)]
    label_sentences(sentences, LogitCache("t"), Teacher())
    cached = LogitCache("t").get(sentences)
    assert torch.equal(
        torch.tensor(np.stack([cached[s] for s in sentences])), teacher_logits(sentences)
    )


def test_another_teacher_has_another_file():
    first, second = LogitCache("1" * 64), LogitCache("2" * 64)
    label_sentences(SENTENCES, first, Teacher())
    assert first.file != second.file
    assert second.get(SENTENCES) == {}
    _, computed = label_sentences(SENTENCES, second, Teacher())
    assert computed == 5


def test_cached_logits_are_exact():
    logits = torch.randn(3, 4)
    LogitCache("t").put(["a", "b", "c"], logits)
    cached = LogitCache("t").get(["c", "a", "x"])
    assert cached.keys() == {"a", "c"}
    assert torch.equal(torch.tensor(np.stack([cached["a"], cached["c"]])), logits[[0, 2]])


def test_rows_of_any_number_are_cached_flat():
    """As the logits after each word are; in a file of their own."""
    cache = LogitCache("t", "-words")
    rows = [torch.randn(n, 2) for n in (3, 1, 7)]
    sentences = ["one", "two", "three"]
    by_name = dict(zip(sentences, rows, strict=True))
    for _ in range(2):
        cached, _ = label_sentences(sentences, cache, lambda part: [by_name[s] for s in part])
        for one, row in zip(cached, rows, strict=True):
            assert torch.equal(one.view(-1, 2), row)
    assert LogitCache("t").get(sentences) == {}


def test_damaged_file_is_named():
    file = LogitCache("t").file
    file.write_bytes(b"no database " * 100)
    with pytest.raises(UserError, match="remove it") as caught:
        LogitCache("t")
    assert str(file) in str(caught.value)


def test_cache_is_in_the_cache_folder():
    assert cache_folder() in LogitCache("t").file.parents

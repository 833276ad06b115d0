"""A dataset of what a student learns from: parts of it, several together, batches."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from potstill.data.batching import UNLABELLED
from potstill.distillation.dataset import DistillationDataset
from potstill.distillation.lm_targets import LMTargets
from potstill.distillation.word_targets import word_targets

TOKENS = [[5, 6, 7], [8], [9, 4], [3, 2, 1, 5]]
WORDS = [[0, 2], [], [1], [0, 1, 3]]
TOP_K = 2


def dataset(indices: list[int], soft: bool = True, labels: bool = True) -> DistillationDataset:
    """The sentences at `indices` of TOKENS, with numbers that tell them."""
    tokens = [TOKENS[i] for i in indices]
    rows = [10 * i + n for i in indices for n in range(len(TOKENS[i]) - 1)]
    lm_targets = LMTargets(
        np.arange(len(rows)),
        np.array([row % 2 == 0 for row in rows], bool),
        np.concatenate([[0], np.cumsum([len(t) - 1 for t in tokens])]),
        np.array([[row, row + 1] for row in rows]).reshape(-1, TOP_K),
        np.array([[row / 100, 0.25] for row in rows]).reshape(-1, TOP_K),
        torch.arange(100),
    )
    logits = [np.full((len(WORDS[i]), 2), i, np.float32) for i in indices]
    return DistillationDataset(
        tokens,
        [i % 2 if labels else UNLABELLED for i in indices],
        [i != 2 for i in indices],
        torch.tensor([[i, -i] for i in indices], dtype=torch.float32),
        word_targets([WORDS[i] for i in indices], logits),
        lm_targets if soft else None,
    )


def contents(data: DistillationDataset) -> list[list[object]]:
    """Each sentence's own batch, and its targets as text."""
    found = []
    for i in range(len(data)):
        batch = data.batch([i])
        assert batch.teacher_logits is not None and batch.words is not None
        words = [getattr(batch.words, f.name).tolist() for f in fields(batch.words)]
        text = data.text() if data.is_text[i] else None
        soft = []
        if text and text.targets:
            lm_batch = text.batch([sum(data.is_text[:i])])
            assert lm_batch.target_ids is not None and lm_batch.target_weights is not None
            soft = [lm_batch.target_ids.tolist(), lm_batch.target_weights.tolist()]
        numbers: list[Tensor] = [batch.input_ids, batch.labels, batch.teacher_logits]
        found.append([*(x.tolist() for x in numbers), words, soft])
    return found


ALL = [0, 1, 2, 3]


@pytest.mark.parametrize("indices", [ALL, [3, 0], [1], [2, 2, 1]])
@pytest.mark.parametrize("soft", [True, False])
def test_take_keeps_everything_of_a_sentence(indices: list[int], soft: bool) -> None:
    whole = contents(dataset(ALL, soft))
    assert contents(dataset(ALL, soft).take(indices)) == [whole[i] for i in indices]


@pytest.mark.parametrize(("first", "second"), [([0, 1], [2, 3]), ([3], [0, 1, 2]), ([1], [1, 3])])
@pytest.mark.parametrize("soft", [True, False])
def test_concat_keeps_everything_of_both(first: list[int], second: list[int], soft: bool) -> None:
    both = dataset(first, soft).concat(dataset(second, soft))
    assert len(both) == len(first) + len(second)
    assert contents(both) == contents(dataset(first, soft)) + contents(dataset(second, soft))


@pytest.mark.parametrize("soft_first", [True, False])
def test_concat_adds_hard_targets_where_there_are_no_soft_ones(soft_first: bool) -> None:
    """Their weight is all on the token that follows."""
    both = dataset([0], soft_first).concat(dataset([3], not soft_first))
    hard, soft = (1, 0) if soft_first else (0, 1)
    assert contents(both)[soft] == contents(dataset([[0], [3]][soft]))[0]
    batch = both.text().batch([hard])
    assert batch.target_ids is not None and batch.target_weights is not None
    following = [TOKENS[0], TOKENS[3]][hard][1:]
    assert batch.target_ids[:, -1].tolist() == following
    assert batch.target_weights.tolist() == [[0.0] * TOP_K + [1.0]] * len(following)
    targets = both.text().targets
    assert targets is not None
    assert targets.soft_fraction() == pytest.approx([2, 3][1 - hard] / 5)


def test_a_batch_has_labels_logits_and_words() -> None:
    data = dataset(ALL, labels=False)
    batch = data.batch([3, 1])
    assert batch.indices.tolist() == [3, 1]
    assert batch.labels.tolist() == [UNLABELLED] * 2
    assert batch.teacher_logits is not None and batch.words is not None
    assert batch.teacher_logits.tolist() == [[3, -3], [1, -1]]
    assert batch.words.rows.tolist() == [0, 0, 0]
    moved = batch.to("cpu", copy=True)
    assert moved.words is not None
    assert moved.teacher_logits is not batch.teacher_logits
    assert torch.equal(moved.words.teacher_logits, batch.words.teacher_logits)


def test_text_leaves_out_edited_sentences() -> None:
    text = dataset(ALL).text()
    assert [list(each) for each in text.tokens] == [TOKENS[0], TOKENS[1], TOKENS[3]]


def test_concat_refuses_a_dataset_without_a_teacher() -> None:
    plain = DistillationDataset(TOKENS, [0] * 4, [True] * 4)
    assert plain.batch([0]).teacher_logits is None
    assert len(plain.concat(plain)) == 8
    with pytest.raises(ValueError, match="teacher's logits"):
        plain.concat(dataset(ALL))

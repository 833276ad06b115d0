"""Batches: every sentence once, of like length, the same for the same seed and any processes."""

import numpy as np
import pytest
import torch

from potstill.data.batching import collate, length_batches

LENGTHS = np.random.default_rng(0).integers(1, 48, 203).tolist()


def as_lists(batches) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("batch_size", [1, 7, 32, 203, 500])
@pytest.mark.parametrize("epoch", [1, 2])
def test_every_sentence_once_in_batches_of_the_size(batch_size, epoch):
    batches = length_batches(LENGTHS, batch_size, seed=5, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(LENGTHS)))
    sizes = sorted(len(batch) for batch in batches)
    assert len(sizes) == -(-len(LENGTHS) // batch_size)
    assert all(size == batch_size for size in sizes[1:])


def test_lengths_in_a_batch_are_as_similar_as_possible():
    batches = length_batches(LENGTHS, 16, seed=5, epoch=1)
    by_length = sorted(([LENGTHS[i] for i in batch] for batch in batches), key=lambda b: b[0])
    # One after another they are the sorted lengths: no exchange could save padding.
    assert [n for lengths in by_length for n in lengths] == sorted(LENGTHS)


def test_batches_do_not_come_in_order_of_length():
    longest = [max(LENGTHS[i] for i in b) for b in length_batches(LENGTHS, 16, seed=5, epoch=1)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_batches_differ_between_epochs():
    lengths = [8] * 64
    epochs = [as_lists(length_batches(lengths, 8, seed=5, epoch=e)) for e in (1, 2)]
    first, second = ({frozenset(batch) for batch in batches} for batches in epochs)
    assert len(first & second) < len(first) / 2


def test_seed_and_epoch_determine_the_batches():
    def batches(seed, epoch):
        return as_lists(length_batches(LENGTHS, 16, seed=seed, epoch=epoch))

    assert batches(5, 1) == batches(5, 1)
    assert batches(5, 1) != batches(6, 1)
    assert batches(5, 1) != batches(5, 2)


def test_collate_pads_on_the_right():
    batch = collate([[5, 6], [1], [7, 8, 9]], [2, 0, 1])
    assert batch.indices.tolist() == [2, 0, 1]
    assert batch.input_ids.tolist() == [[7, 8, 9], [5, 6, 0], [1, 0, 0]]
    assert batch.lengths.tolist() == [3, 2, 1]
    assert batch.input_ids.dtype == batch.lengths.dtype == torch.int64

"""Token arrays, against lists."""

import numpy as np
import pytest

from potstill.data.batching import LabelledDataset, TokenDataset
from potstill.data.token_array import TokenArray, positions_of

LISTS = [[5, 6, 7], [], [8], [9, 4]]


def test_lists_and_back() -> None:
    array = TokenArray.of(LISTS)
    assert [each.tolist() for each in array] == LISTS
    assert array.lengths.tolist() == [3, 0, 1, 2] and len(array) == 4
    assert TokenArray.of(array) is array
    assert len(TokenArray.of([])) == 0


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [3, 0], [1], [2, 2, 1], []])
def test_take(indices: list[int]) -> None:
    array = TokenArray.of(LISTS)
    assert [each.tolist() for each in array.take(indices)] == [LISTS[i] for i in indices]
    positions = [p for i in indices for p in range(array.offsets[i], array.offsets[i + 1])]
    assert positions_of(array.offsets, indices).tolist() == positions


def test_concat() -> None:
    both = TokenArray.of(LISTS).concat(TokenArray.of([[1], [2, 3]]))
    assert [each.tolist() for each in both] == [*LISTS, [1], [2, 3]]


def test_batches_are_those_of_lists() -> None:
    labels = [1, 0, 1, 1]
    listed = LabelledDataset(LISTS, labels)
    arrays = LabelledDataset(
        TokenArray(np.array([5, 6, 7, 8, 9, 4], np.uint16), np.array([0, 3, 3, 4, 6])), labels
    )
    assert (
        arrays.lengths.tolist() == listed.lengths.tolist() == TokenDataset(LISTS).lengths.tolist()
    )
    for indices in ([0, 3], [2, 0, 1]):
        one, other = listed.batch(indices), arrays.batch(indices)
        for name in ("indices", "input_ids", "lengths", "labels"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
            assert getattr(one, name).dtype == getattr(other, name).dtype

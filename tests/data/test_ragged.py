"""Texts as two tensors, and their batches of equal length."""

import torch

from potstill.data.ragged import RaggedTokens, concatenate, equal_length_batches, offsets_of

TEXTS = [[5], [1, 2, 3], [4, 4], [9, 8, 7], [6]]


def ragged(texts: list[list[int]]) -> RaggedTokens:
    lengths = torch.tensor([len(text) for text in texts])
    return RaggedTokens(torch.tensor([t for text in texts for t in text]), offsets_of(lengths))


def test_positions_are_those_of_the_texts() -> None:
    tokens = ragged(TEXTS)
    assert len(tokens) == 5
    assert tokens.lengths.tolist() == [1, 3, 2, 3, 1]
    assert tokens.values[tokens.positions(torch.tensor([3, 1]), 3)].tolist() == [TEXTS[3], TEXTS[1]]


def test_parts_are_joined_in_order() -> None:
    whole, joined = ragged(TEXTS), concatenate([ragged(TEXTS[:2]), ragged(TEXTS[2:])])
    assert torch.equal(whole.values, joined.values)
    assert torch.equal(whole.offsets, joined.offsets)


def test_every_text_is_in_one_batch_of_its_length() -> None:
    lengths = torch.randint(1, 9, (500,), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    batches = equal_length_batches(lengths, 16, generator)
    assert sorted(torch.cat([indices for indices, _ in batches]).tolist()) == list(range(500))
    for indices, length in batches:
        assert 0 < len(indices) <= 16
        assert (lengths[indices] == length).all()
    assert [length for _, length in batches] != sorted(length for _, length in batches)
    again = equal_length_batches(lengths, 16, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    other = equal_length_batches(lengths, 16, generator)
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, other, strict=True))


def test_short_texts_can_be_left_out() -> None:
    lengths = torch.tensor([1, 2, 0, 3, 1])
    batches = equal_length_batches(lengths, 2, torch.Generator().manual_seed(0), shortest=2)
    assert sorted(i for indices, _ in batches for i in indices.tolist()) == [1, 3]

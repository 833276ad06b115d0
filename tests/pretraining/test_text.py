"""General text in memory and in files."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from potstill.data.ragged import RaggedTokens, offsets_of
from potstill.errors import UserError
from potstill.pretraining.text import (
    GeneralText,
    concatenate_texts,
    count_tokens,
    from_block,
    read_shard,
    split_into_sentences,
    write_shard,
)
from potstill.pretraining.vocabulary import TokenSplitter
from potstill.transfer.gpu_sampling import SampledBlock

SPELLINGS = ["the", "Ġcat", ".", '."', "Ġand", "Mr", "?", "Ċ", "!)"]


def ragged(texts: list[list[int]]) -> RaggedTokens:
    lengths = torch.tensor([len(text) for text in texts])
    return RaggedTokens(torch.tensor([t for text in texts for t in text]), offsets_of(lengths))


def lists(tokens: RaggedTokens) -> list[list[int]]:
    return [part.tolist() for part in tokens.values.split(tokens.lengths.tolist())]


@pytest.fixture
def text() -> GeneralText:
    block = SampledBlock(
        tokens=torch.tensor([[1, 2, 9], [3, 9, 9]]),
        lengths=torch.tensor([2, 1]),
        token_ids=torch.arange(12).view(2, 3, 2) % 4,
        probs=torch.rand(2, 3, 2).half(),
        states=torch.rand(2, 3, 5).half(),
    )
    return from_block(block, TokenSplitter([[0], [7], [8, 0], [9, 1]], torch.device("cpu")))


def test_a_block_loses_its_padding(text: GeneralText) -> None:
    assert lists(text.tokens) == [[1, 2], [3]]
    assert text.top_ids.tolist() == [[0, 7], [8, 9], [8, 9]]
    assert (text.top_probs.shape, text.states.shape) == ((3, 2), (3, 5))


def test_files_give_back_what_was_written(text: GeneralText, tmp_path: Path) -> None:
    file = tmp_path / "text"
    write_shard(file, text)
    assert count_tokens(file) == 3
    both = concatenate_texts([read_shard(file), read_shard(file)])
    assert lists(both.tokens) == lists(text.tokens) * 2
    for field in fields(GeneralText)[1:]:
        tensor = getattr(text, field.name)
        assert torch.equal(getattr(both, field.name), torch.cat([tensor, tensor]))
    file.write_bytes(file.read_bytes()[:-1])
    for read in (read_shard, count_tokens):
        with pytest.raises(UserError, match=f"{file} is damaged .* samples it again"):
            read(file)


def test_sentences_end_before_a_space() -> None:
    texts = [[0, 1, 2, 4, 1, 3, 1, 6, 7, 0], [5, 2, 0, 8, 4, 2], [2, 2]]
    apart = split_into_sentences(ragged(texts), SPELLINGS, fraction=1, seed=0)
    assert lists(apart) == [[0, 1, 2], [4, 1, 3], [1, 6], [7, 0], [5, 2, 0, 8, 4, 2], [2, 2]]
    assert lists(split_into_sentences(ragged(texts), SPELLINGS, fraction=0, seed=0)) == texts


def test_a_fraction_of_the_texts_is_split() -> None:
    texts = ragged([[0, 2, 1]] * 1000)
    apart = split_into_sentences(texts, SPELLINGS, fraction=0.3, seed=1)
    assert 1240 < len(apart) < 1360
    again = split_into_sentences(texts, SPELLINGS, fraction=0.3, seed=1)
    assert torch.equal(apart.offsets, again.offsets)
    assert len(split_into_sentences(texts, SPELLINGS, fraction=0.3, seed=2)) != len(apart)

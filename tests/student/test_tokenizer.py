"""Text is characters, whatever it spells, and what is cut is counted."""

import pickle

import pytest
from tokenizers import Tokenizer

from potstill.student.tokenizer import encode, train_tokenizer, truncated, word_end_positions

TEXTS = ["The <pad> is on the table.", "<pad><pad>", "No padding."]


@pytest.mark.parametrize("kept", ["as it was trained", "in a file", "pickled"])
def test_text_that_spells_the_padding_is_text(kept: str) -> None:
    tokenizer = train_tokenizer(TEXTS * 20, 400)
    if kept == "in a file":
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
    if kept == "pickled":
        tokenizer = pickle.loads(pickle.dumps(tokenizer))
    tokens = encode(tokenizer, TEXTS, 128)
    assert not any(0 in ids for ids in tokens)
    assert [tokenizer.decode(ids).strip() for ids in tokens] == TEXTS
    # Five characters between two spaces end one word, the second of the sentence.
    ends = word_end_positions(tokenizer, TEXTS[:1], 128)[0]
    assert tokenizer.decode(tokens[0][ends[0] + 1 : ends[1] + 1]).strip() == "<pad>"


@pytest.mark.parametrize("texts", [["a" * n for n in range(1, 40)], ["é" * n for n in range(9)]])
@pytest.mark.parametrize("max_length", [1, 2, 8, 16])
def test_what_is_truncated_is_what_encode_cuts(texts: list[str], max_length: int) -> None:
    for tokenizer in (train_tokenizer(["aaaa"] * 9, 300), train_tokenizer(["b"], 300)):
        whole = [len(ids) for ids in encode(tokenizer, texts, 1000)]
        assert truncated(tokenizer, texts, max_length) == [n > max_length for n in whole]

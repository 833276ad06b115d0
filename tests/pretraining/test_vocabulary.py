"""A student's vocabulary that is the beginning of a decoder's."""

import json
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from potstill.data.corpus import load_corpus
from potstill.data.ragged import RaggedTokens, offsets_of
from potstill.errors import UserError
from potstill.pretraining.vocabulary import TokenSplitter, truncate_vocabulary

SENTENCES = load_corpus("minicola").splits["dev"].sentences[:200]
SIZE = 310


def byte_level(specials: list[str], alphabet: list[str]) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=specials[0])


@pytest.fixture(scope="module")
def decoders_tokenizer() -> Any:
    """Without the bytes 4 and 0xF1, and with special tokens."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return byte_level(["<eos>", "<a>", "<b>", "<c>"], sorted({*alphabet} - {chr(260), "ñ"}))


def test_text_has_the_decoders_tokens_taken_apart(decoders_tokenizer: Any) -> None:
    vocabulary = truncate_vocabulary(decoders_tokenizer, SIZE)
    assert vocabulary.tokenizer.get_vocab_size() == SIZE
    whole = decoders_tokenizer(SENTENCES, add_special_tokens=False)["input_ids"]
    assert max(map(max, whole)) >= SIZE
    student = [each.ids for each in vocabulary.tokenizer.encode_batch(SENTENCES)]
    assert [[part for token in ids for part in vocabulary.parts[token]] for ids in whole] == student
    spelt = decoders_tokenizer.convert_ids_to_tokens(whole[0])
    assert [vocabulary.spellings[token] for token in whole[0]] == spelt


def test_missing_bytes_take_the_place_of_special_tokens(decoders_tokenizer: Any) -> None:
    tokenizer = truncate_vocabulary(decoders_tokenizer, SIZE).tokenizer
    vocab = tokenizer.get_vocab()
    assert (vocab["<eos>"], vocab[chr(260)], vocab["ñ"], vocab["<c>"]) == (0, 1, 2, 3)
    text = "a\x04b \U00041234 <eos><c>"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not {0, 3} & {*ids}


def test_what_can_not_be_shortened_is_refused(decoders_tokenizer: Any) -> None:
    with pytest.raises(UserError, match="`vocab_size` 601 is not the beginning of the decoder's"):
        truncate_vocabulary(decoders_tokenizer, 601)
    few = byte_level(["<eos>"], sorted({*pre_tokenizers.ByteLevel.alphabet()} - {"ñ"}))
    with pytest.raises(UserError, match="`vocab_size` 310 leaves 1 bytes without a token"):
        truncate_vocabulary(few, SIZE)
    described = json.loads(decoders_tokenizer.backend_tokenizer.to_str())
    described["model"]["merges"].reverse()
    shuffled = Tokenizer.from_str(json.dumps(described))
    with pytest.raises(UserError, match="is not the beginning"):
        truncate_vocabulary(PreTrainedTokenizerFast(tokenizer_object=shuffled), SIZE)
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(UserError, match="is no byte-level BPE"):
        truncate_vocabulary(PreTrainedTokenizerFast(tokenizer_object=words), SIZE)


def test_the_splitter_says_where_a_decoders_token_ends() -> None:
    splitter = TokenSplitter([[0], [1], [2, 0, 1], [1, 1]], torch.device("cpu"))
    tokens = RaggedTokens(torch.tensor([2, 0, 3, 1]), offsets_of(torch.tensor([2, 1, 1])))
    student, origin = splitter.split(tokens)
    assert student.values.tolist() == [2, 0, 1, 0, 1, 1, 1]
    assert student.lengths.tolist() == [4, 2, 1]
    assert origin.tolist() == [-1, -1, 0, 1, -1, 2, 3]
    assert splitter.first.tolist() == [0, 1, 2, 1]

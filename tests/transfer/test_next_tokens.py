"""What a decoder holds likely after each token: against transformers, and as targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import decoders
from transformers import AutoModelForCausalLM

from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.errors import UserError
from potstill.settings import LoRASettings
from potstill.transfer.next_tokens import (
    LIKELIEST,
    NextTokens,
    read_next_tokens,
    vocabulary,
    write_next_tokens,
)
from potstill.transfer.sampling import Sampled, sample
from potstill.transfer.teacher_lm import likeliest, of_sampled

SENTENCES = ["The birds sing.", "Ann", "Naïve dogs sleep all the time, the cats say.", "It rains."]


def found_in(decoder: BaseModel, sentences: list[str]) -> list[NextTokens]:
    model = LanguageModel(decoder.language_model(), decoder.tokenizer(), LoRASettings())
    model.fuse()
    return likeliest(model.eval(), decoder.tokenizer(), sentences)


@torch.no_grad()
def test_chances_are_transformers(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder.folder)
    found = found_in(tiny_decoder, SENTENCES)
    assert len(found) == len(SENTENCES)
    for sentence, one in zip(SENTENCES, found, strict=True):
        tokens = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        assert one.following.tolist() == tokens[1:]
        texts = [tokenizer.decode(tokens[: i + 1]) for i in range(len(tokens) - 1)]
        whole_letters = [i for i, text in enumerate(texts) if "\ufffd" not in text]
        assert [one.ends[i] for i in whole_letters] == [len(texts[i]) for i in whole_letters]
        start = tokenizer.bos_token_id
        logits = whole(torch.tensor([[start, *tokens]])).logits[0, 1:-1]
        logits[:, tokenizer.eos_token_id] = -torch.inf
        chances, places = logits.softmax(1).topk(LIKELIEST)
        torch.testing.assert_close(
            torch.from_numpy(one.chances).float(), chances, rtol=2e-3, atol=1e-5
        )
        assert (one.tokens == places.numpy()).mean() > 0.95 or not len(places)  # but for ties


def test_sentences_of_one_token_have_nothing_to_tell(tiny_decoder: BaseModel) -> None:
    """Alone among themselves, too: no place is asked for."""
    tokenizer = tiny_decoder.tokenizer()
    assert all(len(tokenizer(letter)["input_ids"]) == 1 for letter in "ab")
    for one in found_in(tiny_decoder, ["a", "b"]):
        assert one.tokens.shape == one.chances.shape == (0, LIKELIEST)
        assert not len(one.ends) and not len(one.following)


@torch.no_grad()
def test_of_sampled_is_what_another_look_finds(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    model = LanguageModel(tiny_decoder.language_model(), tokenizer, LoRASettings())
    model.fuse()
    model.end = int(model.head(model(torch.tensor([[model.start]]))).argmax())
    drawn = {tokenizer.decode(one.tokens): one for one in sample(model.eval(), 200, 1, 1.0, 6)}
    found = {text: of_sampled(tokenizer, text, one) for text, one in drawn.items()}
    texts = [text for text, one in found.items() if one and len(one.ends)]
    assert len(texts) > 3
    for text, expected in zip(texts, likeliest(model, tokenizer, texts), strict=True):
        one = found[text]
        assert one and one.ends.dtype == expected.ends.dtype
        np.testing.assert_array_equal(one.ends, expected.ends)
        np.testing.assert_array_equal(one.following, expected.following)
        np.testing.assert_allclose(one.chances, expected.chances, rtol=2e-3, atol=1e-5)
        assert (one.tokens == expected.tokens).mean() > 0.9  # but for ties
    # Drawn as other tokens than the tokenizer makes of the text, or by transformers.
    chances = torch.zeros(1, LIKELIEST)
    pair = next(t for t in sorted(tokenizer.get_vocab()) if len(t) == 2 and t.isascii())
    letters = tokenizer.convert_tokens_to_ids(list(pair))
    assert tokenizer.decode(letters) == pair and tokenizer(pair)["input_ids"] != letters
    assert of_sampled(tokenizer, pair, Sampled(letters, (chances, chances))) is None
    assert of_sampled(tokenizer, texts[0], Sampled(drawn[texts[0]].tokens)) is None


def test_written_and_read_back(tiny_decoder: BaseModel, tmp_path: Path) -> None:
    found = found_in(tiny_decoder, SENTENCES)
    file = tmp_path / "sampled-00000.next.npz"
    write_next_tokens(file, found)
    body = file.read_bytes()
    for one, other in zip(found, read_next_tokens(file, len(SENTENCES)), strict=True):
        for name in ("ends", "tokens", "chances", "following"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    write_next_tokens(file, found)
    assert file.read_bytes() == body and [f.name for f in tmp_path.iterdir()] == [file.name]
    with pytest.raises(UserError, match=r"next\.npz is damaged .* run `potstill transfer` again"):
        read_next_tokens(file, len(SENTENCES) + 1)
    for damaged in (b"", body[:-40], body[: len(body) // 2], b"no archive at all"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"next\.npz is damaged"):
            read_next_tokens(file, len(SENTENCES))
    write_next_tokens(file, [])
    assert read_next_tokens(file, 0) == []


def test_tokens_of_other_tokenizers_are_spelt_in_bytes(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    assert vocabulary(tokenizer) == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace()
    before = tokenizer.convert_ids_to_tokens

    def pieces(ids: Any) -> list[str]:
        return ["▁the", "naïve", "▁", *before(ids)[3:]]

    tokenizer.convert_ids_to_tokens = pieces
    assert vocabulary(tokenizer)[:3] == ["Ġthe", "naÃ¯ve", "Ġ"]

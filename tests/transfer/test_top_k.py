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
from potstill.transfer.sampling import Sampled, sample
from potstill.transfer.teacher_lm import sampled_top_k, top_k_targets, vocabulary
from potstill.transfer.top_k import (
    TOP_K,
    TopKTargets,
    read_top_k,
    write_top_k,
)

SENTENCES = ["The birds sing.", "Ann", "Naïve dogs sleep all the time, the cats say.", "It rains."]


def found_in(decoder: BaseModel, sentences: list[str]) -> list[TopKTargets]:
    model = LanguageModel(decoder.language_model(), decoder.tokenizer(), LoRASettings())
    model.fuse()
    return top_k_targets(model.eval(), decoder.tokenizer(), sentences)


@torch.no_grad()
def test_chances_are_transformers(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder.folder)
    found = found_in(tiny_decoder, SENTENCES)
    assert len(found) == len(SENTENCES)
    for sentence, one in zip(SENTENCES, found, strict=True):
        tokens = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        assert one.next_ids.tolist() == tokens[1:]
        texts = [tokenizer.decode(tokens[: i + 1]) for i in range(len(tokens) - 1)]
        whole_letters = [i for i, text in enumerate(texts) if "\ufffd" not in text]
        assert [one.offsets[i] for i in whole_letters] == [len(texts[i]) for i in whole_letters]
        start = tokenizer.bos_token_id
        logits = whole(torch.tensor([[start, *tokens]])).logits[0, 1:-1]
        logits[:, tokenizer.eos_token_id] = -torch.inf
        chances, places = logits.softmax(1).topk(TOP_K)
        torch.testing.assert_close(
            torch.from_numpy(one.probs).float(), chances, rtol=2e-3, atol=1e-5
        )
        assert (one.token_ids == places.numpy()).mean() > 0.95 or not len(places)  # but for ties


def test_sentences_of_one_token_have_nothing_to_tell(tiny_decoder: BaseModel) -> None:
    """Alone among themselves, too: no place is asked for."""
    tokenizer = tiny_decoder.tokenizer()
    assert all(len(tokenizer(letter)["input_ids"]) == 1 for letter in "ab")
    for one in found_in(tiny_decoder, ["a", "b"]):
        assert one.token_ids.shape == one.probs.shape == (0, TOP_K)
        assert not len(one.offsets) and not len(one.next_ids)


@torch.no_grad()
def test_of_sampled_is_what_another_look_finds(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    model = LanguageModel(tiny_decoder.language_model(), tokenizer, LoRASettings())
    model.fuse()
    model.end = int(model.head(model(torch.tensor([[model.start]]))).argmax())
    drawn = {tokenizer.decode(one.tokens): one for one in sample(model.eval(), 200, 1, 1.0, 6)}
    found = {text: sampled_top_k(tokenizer, text, one) for text, one in drawn.items()}
    texts = [text for text, one in found.items() if one and len(one.offsets)]
    assert len(texts) > 3
    for text, expected in zip(texts, top_k_targets(model, tokenizer, texts), strict=True):
        one = found[text]
        assert one and one.offsets.dtype == expected.offsets.dtype
        np.testing.assert_array_equal(one.offsets, expected.offsets)
        np.testing.assert_array_equal(one.next_ids, expected.next_ids)
        np.testing.assert_allclose(one.probs, expected.probs, rtol=2e-3, atol=1e-5)
        assert (one.token_ids == expected.token_ids).mean() > 0.9  # but for ties
    # Drawn as other tokens than the tokenizer makes of the text, or by transformers.
    chances = torch.zeros(1, TOP_K)
    pair = next(t for t in sorted(tokenizer.get_vocab()) if len(t) == 2 and t.isascii())
    letters = tokenizer.convert_tokens_to_ids(list(pair))
    assert tokenizer.decode(letters) == pair and tokenizer(pair)["input_ids"] != letters
    assert sampled_top_k(tokenizer, pair, Sampled(letters, (chances, chances))) is None
    assert sampled_top_k(tokenizer, texts[0], Sampled(drawn[texts[0]].tokens)) is None


def test_written_and_read_back(tiny_decoder: BaseModel, tmp_path: Path) -> None:
    found = found_in(tiny_decoder, SENTENCES)
    file = tmp_path / "sampled-00000.next.npz"
    write_top_k(file, found)
    body = file.read_bytes()
    for one, other in zip(found, read_top_k(file, len(SENTENCES)), strict=True):
        for name in ("offsets", "token_ids", "probs", "next_ids"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    write_top_k(file, found)
    assert file.read_bytes() == body and [f.name for f in tmp_path.iterdir()] == [file.name]
    with pytest.raises(UserError, match=r"next\.npz is damaged .* run `potstill transfer` again"):
        read_top_k(file, len(SENTENCES) + 1)
    for damaged in (b"", body[:-40], body[: len(body) // 2], b"no archive at all"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"next\.npz is damaged"):
            read_top_k(file, len(SENTENCES))
    write_top_k(file, [])
    assert read_top_k(file, 0) == []


def test_tokens_of_other_tokenizers_are_spelt_in_bytes(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    assert vocabulary(tokenizer) == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace()
    before = tokenizer.convert_ids_to_tokens

    def pieces(ids: Any) -> list[str]:
        return ["▁the", "naïve", "▁", *before(ids)[3:]]

    tokenizer.convert_ids_to_tokens = pieces
    assert vocabulary(tokenizer)[:3] == ["Ġthe", "naÃ¯ve", "Ġ"]

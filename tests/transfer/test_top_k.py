"""The most probable next tokens of a decoder, against transformers."""

from typing import Any

import numpy as np
import torch
from tokenizers import decoders
from transformers import AutoModelForCausalLM

from potstill.decoder.hub import BaseModel
from potstill.transfer.sampling import Sampled, sample
from potstill.transfer.teacher_lm import sampled_top_k, top_k_targets, vocabulary
from potstill.transfer.top_k import TOP_K, TopKTargets
from tests.transfer.language_models import language_model, most_probable_first_token

SENTENCES = ["The birds sing.", "Ann", "Naïve dogs sleep all the time, the cats say.", "It rains."]


def targets_of(decoder: BaseModel, sentences: list[str]) -> list[TopKTargets]:
    model = language_model(decoder, adapters=False)
    return top_k_targets(model, decoder.tokenizer(), sentences)


@torch.no_grad()
def test_probabilities_are_those_of_transformers(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder.folder)
    every = targets_of(tiny_decoder, SENTENCES)
    assert len(every) == len(SENTENCES)
    for sentence, targets in zip(SENTENCES, every, strict=True):
        tokens = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        assert targets.next_ids.tolist() == tokens[1:]
        texts = [tokenizer.decode(tokens[: i + 1]) for i in range(len(tokens) - 1)]
        whole_letters = [i for i, text in enumerate(texts) if "\ufffd" not in text]
        assert [targets.offsets[i] for i in whole_letters] == [len(texts[i]) for i in whole_letters]
        start = tokenizer.bos_token_id
        logits = whole(torch.tensor([[start, *tokens]])).logits[0, 1:-1]
        logits[:, tokenizer.eos_token_id] = -torch.inf
        probs, token_ids = logits.softmax(1).topk(TOP_K)
        torch.testing.assert_close(
            torch.from_numpy(targets.probs).float(), probs, rtol=2e-3, atol=1e-5
        )
        same = targets.token_ids == token_ids.numpy()
        assert same.mean() > 0.95 or not len(token_ids)  # but for ties


def test_sentences_of_one_token_have_no_targets(tiny_decoder: BaseModel) -> None:
    """Not even where all sentences are such."""
    tokenizer = tiny_decoder.tokenizer()
    assert all(len(tokenizer(letter)["input_ids"]) == 1 for letter in "ab")
    for targets in targets_of(tiny_decoder, ["a", "b"]):
        assert targets.token_ids.shape == targets.probs.shape == (0, TOP_K)
        assert not len(targets.offsets) and not len(targets.next_ids)


@torch.no_grad()
def test_targets_from_sampling_equal_those_of_another_pass(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    model = language_model(tiny_decoder, adapters=False)
    model.end = most_probable_first_token(model)
    drawn = {
        tokenizer.decode(each.tokens): each
        for each in sample(model, 200, 1, temperature=1.0, max_tokens=6)
    }
    targets = sampled_top_k(tokenizer, list(drawn), list(drawn.values()))
    sampled = dict(zip(drawn, targets, strict=True))
    texts = [text for text, targets in sampled.items() if targets and len(targets.offsets)]
    assert len(texts) > 3
    for text, expected in zip(texts, top_k_targets(model, tokenizer, texts), strict=True):
        targets = sampled[text]
        assert targets and targets.offsets.dtype == expected.offsets.dtype
        np.testing.assert_array_equal(targets.offsets, expected.offsets)
        np.testing.assert_array_equal(targets.next_ids, expected.next_ids)
        np.testing.assert_allclose(targets.probs, expected.probs, rtol=2e-3, atol=1e-5)
        assert (targets.token_ids == expected.token_ids).mean() > 0.9  # but for ties


def test_sampling_gives_no_targets_for_other_tokens(tiny_decoder: BaseModel) -> None:
    """Other tokens were drawn than the tokenizer splits the text into, or transformers drew."""
    tokenizer = tiny_decoder.tokenizer()
    probs = torch.zeros(1, TOP_K)
    pair = next(t for t in sorted(tokenizer.get_vocab()) if len(t) == 2 and t.isascii())
    letters = tokenizer.convert_tokens_to_ids(list(pair))
    assert tokenizer.decode(letters) == pair and tokenizer(pair)["input_ids"] != letters
    drawn = [Sampled(letters, (probs, probs)), Sampled(tokenizer(pair)["input_ids"])]
    for each in drawn:
        assert sampled_top_k(tokenizer, [pair], [each]) == [None]
    assert sampled_top_k(tokenizer, [pair, pair], drawn) == [None, None]


def test_tokens_of_other_tokenizers_are_spelt_in_bytes(tiny_decoder: BaseModel) -> None:
    tokenizer = tiny_decoder.tokenizer()
    assert vocabulary(tokenizer) == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace()
    tokens_of = tokenizer.convert_ids_to_tokens

    def pieces(ids: Any) -> list[str]:
        return ["▁the", "naïve", "▁", *tokens_of(ids)[3:]]

    tokenizer.convert_ids_to_tokens = pieces
    assert vocabulary(tokenizer)[:3] == ["Ġthe", "naÃ¯ve", "Ġ"]

"""The words of a sentence among a decoder's tokens."""

import numpy as np
import pytest
import torch

from potstill.data.token_array import TokenArray
from potstill.decoder import classifier
from potstill.decoder.classifier import encode_words, logits_at
from potstill.errors import UserError
from potstill.training.distributed import process
from tests.decoder.conftest import tuned

SENTENCES = [
    "The books on the table are old.",
    "  Naïve\u00a0«birds»  sing,\tdon't they?  ",
    "👩‍👩‍👧 said so",
    "It",
]
WORDS = [7, 5, 3, 1]  # a no-break space is a space


@pytest.mark.parametrize("start", [None, 7])
def test_tokens_up_to_a_position_are_the_words_so_far(tiny_decoder, start):
    tokenizer = tiny_decoder.tokenizer()
    tokens, _ = classifier.encode(tokenizer, SENTENCES, 128, start)
    same, positions = encode_words(tokenizer, SENTENCES, 128, start)
    assert [each.tolist() for each in same] == tokens
    assert [len(each) for each in positions] == WORDS
    for sentence, ids, ends in zip(SENTENCES, tokens, positions, strict=True):
        for number, position in enumerate(ends, 1):
            tokens_so_far = ids[int(start is not None) : position + 1]
            assert tokenizer.decode(tokens_so_far).split() == sentence.split()[:number]
    _, short = encode_words(tokenizer, SENTENCES, 6, start)
    within = [[position for position in each if position < 6] for each in positions]
    # The last token stands for a first word that is cut off.
    assert [each.tolist() for each in short] == [each or [5] for each in within]


@torch.no_grad()
@pytest.mark.gpu
@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
def test_logits_at_positions_are_those_of_sentences_that_end_there(
    tiny_decoder, random_tokens, batch_tokens
):
    model = tuned(tiny_decoder).eval()
    tokens = random_tokens([9, 2, 10, 1, 9, 20, 3])
    positions = [[0, 8], [1], [4, 4, 9], [0], [], [19, 2], [2]]
    expected = [
        model(torch.tensor([ids[: at + 1]]), torch.tensor([at + 1]))[0]
        for ids, each in zip(tokens, positions, strict=True)
        for at in each
    ]
    found = logits_at(
        model.to(process().device),
        TokenArray.of(tokens),
        TokenArray.of(positions),
        batch_tokens=batch_tokens,
    )
    np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-3, atol=1e-4)


def test_too_little_memory_makes_batches_smaller(tiny_decoder, random_tokens, monkeypatch, caplog):
    model = tuned(tiny_decoder).eval()
    tokens, positions = TokenArray.of(random_tokens([5] * 16)), TokenArray.of([[4]] * 16)
    expected = logits_at(model, tokens, positions, batch_tokens=100)
    forward, most = model.logits_after_each_token, 15

    def limited(input_ids):
        if input_ids.numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids)

    monkeypatch.setattr(model, "logits_after_each_token", limited)
    found = logits_at(model, tokens, positions, batch_tokens=100)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert [r.getMessage() for r in caplog.records] == [
        f"too little GPU memory; it goes on with {n} tokens at once" for n in (40, 20, 10)
    ]
    caplog.clear()
    logits_at(model, tokens, positions, batch_tokens=100)
    assert not caplog.records
    most = 4
    with pytest.raises(UserError, match=r"too little memory for a single sentence.*gpt_variant"):
        logits_at(model, tokens, positions, batch_tokens=100)

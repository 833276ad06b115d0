"""Sampling without a loop over sentences; on a CPU here, where it does the same more slowly."""

from collections import Counter
from typing import Any

import pytest
import torch

from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.errors import UserError
from potstill.training.distributed import process
from potstill.transfer.gpu_sampling import sample_blocks
from potstill.transfer.sampling import block_sentences
from potstill.transfer.slots import Outbox, SampledBlock, Slots
from potstill.transfer.top_k import TOP_K
from tests.transfer.language_models import greedy_tokens, most_probable_first_token

MAX_TOKENS = 12


def sentences_of(blocks: list[SampledBlock]) -> list[list[int]]:
    return [
        tokens[:length].tolist()
        for block in blocks
        for tokens, length in zip(block.tokens, block.lengths, strict=True)
    ]


def draw(model: LanguageModel, sentences: int, **settings: int) -> list[SampledBlock]:
    settings = {"seed": 5, "max_tokens": MAX_TOKENS, "slots": 64} | settings
    seed, max_tokens = settings.pop("seed"), settings.pop("max_tokens")
    return list(sample_blocks(model, sentences, seed, 1.0, max_tokens, **settings))


@torch.no_grad()
@pytest.mark.gpu
@pytest.mark.parametrize("slots", [16, 500])
def test_short_sentences_come_with_their_probability(model: LanguageModel, slots: int) -> None:
    """Whichever slots restart and leave: of one token and of two."""
    probs = model.head(model(torch.tensor([[model.start]])))[0, 0].softmax(0)
    first = torch.arange(len(probs))
    pairs = torch.stack([torch.full_like(first, model.start), first], 1)
    ends_second = model.head(model(pairs))[:, 1].softmax(1)[:, model.end]
    one_token = probs * ends_second
    one_token[model.end] = 0
    begun = 1500 if slots == 16 else 4000
    model.to(process().device).fuse()
    counts = Counter(len(tokens) for tokens in sentences_of(draw(model, begun, slots=slots)))
    expected = float(one_token.sum()) * begun
    assert expected > 10
    assert abs(counts[1] - expected) < 4.5 * expected**0.5
    assert 0 not in counts


def test_every_sentence_begun_is_finished_or_dropped(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a temperature near 0 all are the same, and end or do not."""
    length = 7

    def greedy(max_tokens: int) -> list[list[int]]:
        blocks = sample_blocks(model, 50, 0, 1e-4, max_tokens, slots=8, block=16)
        return sentences_of(list(blocks))

    model.end = -1
    assert greedy(length) == []  # none ends
    monkeypatch.setattr(model, "end", most_probable_first_token(model))
    assert greedy(length) == []  # all end before their first token


def test_near_zero_temperature_equals_greedy_decoding_of_transformers(
    model: LanguageModel, tiny_decoder: BaseModel
) -> None:
    out = greedy_tokens(model, tiny_decoder)
    model.end = next(token for token in out if token != out[0])
    expected = out[: out.index(model.end)]
    for max_tokens in (len(expected), 20):  # one that is as long as may be ends in time
        blocks = sample_blocks(model, 50, 0, 1e-4, max_tokens, slots=8, block=16)
        assert sentences_of(list(blocks)) == [expected] * 50


def test_seed_determines_the_sentences(model: LanguageModel) -> None:
    first, again = (sentences_of(draw(model, 200)) for _ in range(2))
    assert first == again
    assert first != sentences_of(draw(model, 200, seed=6))


def test_no_sentence_is_too_long_or_holds_its_end(model: LanguageModel) -> None:
    sampled = sentences_of(draw(model, 300, max_tokens=3))
    assert {len(tokens) for tokens in sampled} == {1, 2, 3}
    assert not any(model.end in tokens for tokens in sampled)


def test_blocks_are_yielded_on_the_way(model: LanguageModel) -> None:
    blocks = draw(model, 2000, slots=16, block=30)
    sizes = [len(block.lengths) for block in blocks]
    assert len(sizes) > 3
    assert min(sizes[:-1]) >= 30
    whole = sentences_of(draw(model, 2000, slots=16))
    assert sentences_of(blocks) == whole


@torch.no_grad()
@pytest.mark.parametrize("slots", [3, 64])
def test_top_k_targets_are_those_of_a_whole_pass(model: LanguageModel, slots: int) -> None:
    (block,) = draw(model, 60, slots=slots)
    assert block.lengths.max() > 3
    for tokens, length, token_ids, probs in zip(
        block.tokens, block.lengths, block.token_ids, block.probs, strict=True
    ):
        ids = torch.tensor([[model.start, *tokens[:length].tolist()]])
        logits = model.head(model(ids))[0, 1:]
        logits[:, model.end] = -torch.inf
        expected, _ = logits.softmax(1).topk(TOP_K)
        torch.testing.assert_close(probs[:length].float(), expected, rtol=2e-3, atol=1e-5)
        actual = logits.softmax(1).gather(1, token_ids[:length].long())
        torch.testing.assert_close(actual, expected, rtol=2e-3, atol=1e-5)


class TestTooLittleMemory:
    def test_half_as_many_slots_are_taken_until_they_fit(
        self,
        model: LanguageModel,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        new, asked = Slots.new, []

        def limited(slots: int, *args: Any, **kwargs: Any) -> Slots:
            asked.append(slots)
            if slots > 20:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return new(slots, *args, **kwargs)

        monkeypatch.setattr(Slots, "new", limited)
        expected = draw(model, 300, slots=16, seed=7)
        asked.clear()
        found = draw(model, 300, slots=64)
        assert asked == [64, 32, 16]
        assert [r.message for r in caplog.records] == [
            f"too little GPU memory to sample {slots} sentences at the same time; it goes on with "
            f"{slots // 2}"
            for slots in (64, 32)
        ]
        # As many end in time as without the fault, but for chance.
        number, wanted = len(sentences_of(found)), len(sentences_of(expected))
        assert abs(number - wanted) < 5 * 300**0.5 / 2
        # What fits is remembered.
        asked.clear()
        draw(model, 50, slots=64)
        assert asked == [16]

    def test_what_was_handed_over_stays(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The memory ends after the first block, as when another process takes it."""
        flush, calls = Outbox.flush, []

        def once(self: Outbox) -> SampledBlock:
            calls.append(len(self.lengths))
            if len(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return flush(self)

        monkeypatch.setattr(Outbox, "flush", once)
        blocks = draw(model, 400, slots=32, block=8)
        assert len(blocks) > 2
        assert 8 <= len(blocks[0].lengths) < len(sentences_of(blocks)) <= 400
        assert calls[2] < calls[1]  # smaller buffers, too

    def test_not_even_one_sentence(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: Any, **kwargs: Any) -> Slots:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        monkeypatch.setattr(Slots, "new", full)
        with pytest.raises(UserError, match="even one sentence"):
            draw(model, 10, slots=4)


@torch.no_grad()
@pytest.mark.gpu
def test_sentences_of_a_block(model: LanguageModel) -> None:
    """With their targets, which lead to no other sentences."""
    model.to(process().device).fuse()
    (block,) = draw(model, 60)
    sampled = block_sentences(block)
    assert [each.tokens for each in sampled] == sentences_of([block])
    for row, each in enumerate(sampled):
        assert each.top_k
        for found, whole in zip(each.top_k, (block.token_ids, block.probs), strict=True):
            torch.testing.assert_close(found, whole[row, : len(each.tokens) - 1].cpu())
    (hard,) = draw(model, 60, soft_targets=False)
    assert [each.tokens for each in block_sentences(hard)] == sentences_of([block])
    assert not any(each.top_k for each in block_sentences(hard))

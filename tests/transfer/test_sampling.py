"""Sampling: the cached step against the whole pass, the draw against its probabilities."""

from collections.abc import Iterable

import pytest
import torch
from transformers import AutoModelForCausalLM

from potstill.decoder.hub import BaseModel, find_base_model
from potstill.decoder.language_model import LanguageModel
from potstill.decoder.lora import lora_layers
from potstill.training.precision import cast_frozen_to_bf16
from potstill.transfer import sampling
from potstill.transfer.sampling import (
    Sampled,
    draw,
    draw_and_top_k,
    sample,
    sample_parts,
    top_k_next,
)
from potstill.transfer.top_k import TOP_K
from tests.transfer.language_models import greedy_tokens, language_model, most_probable_first_token

MAX_TOKENS = 12


def tokens_of(sentences: Iterable[Sampled]) -> list[list[int]]:
    return [sampled.tokens for sampled in sentences]


@torch.no_grad()
def test_steps_with_a_cache_equal_one_pass(model: LanguageModel) -> None:
    """Whatever position each row has reached."""
    assert model.fused
    ids = torch.randint(1, 300, (3, 9))
    whole = model(ids)
    ends = torch.tensor([3, 9, 6])
    cache = model.fused.new_cache(3, 9)
    for row, end in enumerate(ends.tolist()):
        for position in range(end - 1):  # one row alone; the others wait at position 0
            tokens, positions = ids[:, 0].clone(), torch.zeros(3, dtype=torch.long)
            tokens[row], positions[row] = ids[row, position], position
            before = [[t.clone() for t in part] for part in (cache.keys, cache.values)]
            model.fused.step(tokens, positions, cache)
            for part, old_part in zip((cache.keys, cache.values), before, strict=True):
                for now, old in zip(part, old_part, strict=True):
                    others = [i for i in range(3) if i != row]
                    now[others] = old[others]
    rows = torch.arange(3)
    states = model.fused.step(ids[rows, ends - 1], ends - 1, cache)
    torch.testing.assert_close(states, whole[rows, ends - 1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_logits_equal_transformers(tiny_decoder: BaseModel) -> None:
    """Before its first step of tuning a language model is the pretrained one."""
    model = language_model(tiny_decoder, adapters=False)
    ids = torch.randint(1, 300, (2, 7))
    expected = AutoModelForCausalLM.from_pretrained(tiny_decoder.folder)(input_ids=ids).logits
    torch.testing.assert_close(model.head(model(ids)), expected, rtol=1e-4, atol=1e-5)


def test_only_adapters_and_norms_are_trainable(model: LanguageModel) -> None:
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(n.endswith((".U", ".V")) or "norm" in n or "ln_" in n for n in names)


@pytest.mark.parametrize("classes", [3, 256, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_softmax(classes: int, temperature: float) -> None:
    """Pearson's chi-square, 5 standard deviations wide; classes below 5 expected draws pooled."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(classes)
    draws = 40_000
    generator = torch.Generator().manual_seed(1)
    drawn = draw(logits.repeat(draws, 1), temperature, generator)
    expected = draws * (logits / temperature).softmax(0)
    counts = torch.bincount(drawn, minlength=classes).float()
    common = expected >= 5
    pairs = [(counts[common], expected[common])]
    if not common.all():
        pairs.append((counts[~common].sum()[None], expected[~common].sum()[None]))
    statistic = sum(float(((c - e) ** 2 / e.clamp(min=1)).sum()) for c, e in pairs)
    freedom = int(common.sum())
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_impossible_classes_are_never_drawn() -> None:
    logits = torch.full((500, 300), -torch.inf)
    logits[:, [0, 257, 299]] = 1.0
    drawn = draw(logits, 1.0, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 257, 299}


def test_random_number_past_the_sum_draws_the_last_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding may put a random number there."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, 1.0 + 1e-6))
    logits = torch.zeros(2, 600)
    logits[:, 400:] = -torch.inf
    assert draw(logits, 1.0, torch.Generator()).tolist() == [399, 399]


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_first_tokens_come_with_their_probability(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    """Over a thousand sentences, however many are sampled at the same time."""
    monkeypatch.setattr(sampling, "SLOTS", slots)
    with torch.no_grad():
        probs = model.head(model(torch.tensor([[model.start]])))[0, 0].softmax(0)
    sentences = 60 if slots == 1 else 1000
    sampled = tokens_of(sample(model, sentences, 5, temperature=1.0, max_tokens=MAX_TOKENS))
    assert all(len(tokens) <= MAX_TOKENS and model.end not in tokens for tokens in sampled)
    # The first draw decides whether a sentence ends at once.
    ended = sum(not tokens for tokens in sampled) / sentences
    expected = float(probs[model.end])
    assert abs(ended - expected) < 4 * (expected * (1 - expected) / sentences) ** 0.5 + 1e-3


def test_seed_determines_the_sentences(model: LanguageModel) -> None:
    first, again = (
        tokens_of(sample(model, 40, 7, temperature=1.0, max_tokens=MAX_TOKENS)) for _ in range(2)
    )
    assert first == again
    assert first != tokens_of(sample(model, 40, 8, temperature=1.0, max_tokens=MAX_TOKENS))


def test_sentences_without_soft_targets_are_the_same(model: LanguageModel) -> None:
    settings = {"temperature": 1.0, "max_tokens": MAX_TOKENS}
    soft, hard = (
        list(sample(model, 40, 7, soft_targets=soft_targets, **settings))
        for soft_targets in (True, False)
    )
    assert tokens_of(soft) == tokens_of(hard)
    assert all(each.top_k for each in soft) and not any(each.top_k for each in hard)
    parts = list(sample_parts(model, 40, 7, **settings))
    assert tokens_of(each for part in parts for each in part) == tokens_of(soft)


@torch.no_grad()
@pytest.mark.parametrize("slots", [3, 64])
def test_top_k_targets_are_those_of_transformers(
    model: LanguageModel, tiny_decoder: BaseModel, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    """Whichever slots restart and leave."""
    monkeypatch.setattr(sampling, "SLOTS", slots)
    for _, layer in lora_layers(model):
        layer.V.zero_()
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder.folder)
    sentences = list(sample(model, 40, 5, temperature=1.0, max_tokens=MAX_TOKENS))
    assert max(len(sampled.tokens) for sampled in sentences) > 3
    for sampled in sentences:
        assert sampled.top_k
        token_ids, probs = sampled.top_k
        inner = max(len(sampled.tokens) - 1, 0)
        assert token_ids.shape == probs.shape == (inner, TOP_K)
        logits = whole(torch.tensor([[model.start, *sampled.tokens]])).logits[0, 1 : inner + 1]
        logits[:, model.end] = -torch.inf
        expected, expected_ids = logits.softmax(1).topk(TOP_K)
        torch.testing.assert_close(probs.float(), expected, rtol=2e-3, atol=1e-5)
        torch.testing.assert_close(
            logits.softmax(1).gather(1, token_ids.long()), expected, rtol=2e-3, atol=1e-5
        )
        assert (token_ids == expected_ids).float().mean() > 0.9 or not inner  # but for ties


def test_near_zero_temperature_equals_greedy_decoding_of_transformers(
    model: LanguageModel, tiny_decoder: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows restart and leave without disturbing the others."""
    monkeypatch.setattr(sampling, "SLOTS", 3)
    out = greedy_tokens(model, tiny_decoder)
    model.end = out[-1]
    assert (
        tokens_of(sample(model, 7, 0, temperature=1e-4, max_tokens=20))
        == [out[: out.index(model.end)]] * 7
    )
    model.end = -1
    assert tokens_of(sample(model, 7, 0, temperature=1e-4, max_tokens=20)) == []


def test_decoder_that_is_not_fused(tiny_gpt2: str) -> None:
    """Through transformers' own modules; bf16 as well."""
    model = language_model(find_base_model(str(tiny_gpt2)))
    model.end = most_probable_first_token(model)
    expected = model(torch.tensor([[1, 2, 3]]))
    cast_frozen_to_bf16(model.whole)
    model.fuse()
    model.fused = None
    torch.testing.assert_close(
        model(torch.tensor([[1, 2, 3]])).float(), expected, rtol=0.1, atol=0.1
    )
    parts = sample_parts(model, 20, 1, temperature=1.0, max_tokens=MAX_TOKENS)
    sampled = tokens_of(each for part in parts for each in part)
    assert sampled
    assert all(len(tokens) <= MAX_TOKENS and model.end not in tokens for tokens in sampled)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocab_size", [TOP_K + 1, 300, 512, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_and_the_top_k_at_once_are_those_of_each(
    temperature: float, vocab_size: int, dtype: torch.dtype
) -> None:
    logits = (3 * torch.randn(21, vocab_size, generator=torch.Generator().manual_seed(0))).to(dtype)
    before, end = logits.clone(), vocab_size // 2
    for row, logit in ((3, 30), (14, 250)):  # nearly all of the probability is the end's
        logits[row, end] = before[row, end] = logit
    seeded = torch.Generator().manual_seed(1)
    drawn, token_ids, probs = draw_and_top_k(logits, temperature, seeded, end)
    assert torch.equal(logits, before)
    assert torch.equal(drawn, draw(logits, temperature, torch.Generator().manual_seed(1)))
    expected_ids, expected = top_k_next([logits], end)
    assert (token_ids.dtype, probs.dtype) == (expected_ids.dtype, expected.dtype)
    torch.testing.assert_close(probs.float(), expected.float(), rtol=2e-3, atol=1e-7)
    # Of logits that are equal, either may come first.
    own, others = (logits.float().gather(1, ids.long()) for ids in (token_ids, expected_ids))
    torch.testing.assert_close(own, others)
    assert not (token_ids == end).any()

"""Sampling: the cached step against the whole pass, the draw against its probabilities."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from potstill.decoder.hub import find_base_model
from potstill.decoder.language_model import LanguageModel
from potstill.decoder.lora import lora_layers
from potstill.settings import LoRASettings, TrainSettings, TransferSettings
from potstill.training.precision import cast_frozen_to_bf16
from potstill.transfer import sampling
from potstill.transfer.sampling import (
    SAMPLER,
    Sampled,
    draw,
    sample,
    tune_language_model,
    tuned_sampler,
)
from potstill.transfer.top_k import TOP_K

MAX_TOKENS = 12


@pytest.fixture
def model(tiny_decoder: Any) -> LanguageModel:
    """A tiny decoder whose adapters are off their zeros, and whose sentences end soon."""
    model = language_model(tiny_decoder)
    with torch.no_grad():
        model.end = int(model.head(model(torch.tensor([[model.start]]))).argmax())
    return model


def tokens_of(found: Iterable[Sampled]) -> list[list[int]]:
    return [sampled.tokens for sampled in found]


def language_model(folder: Any) -> LanguageModel:
    decoder = find_base_model(str(folder))
    torch.manual_seed(3)
    model = LanguageModel(decoder.language_model(), decoder.tokenizer(), LoRASettings())
    with torch.no_grad():
        for _, layer in lora_layers(model):
            layer.V.normal_(std=0.1)
    model.fuse()
    return model


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def tiny_decoder(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@torch.no_grad()
def test_steps_with_a_cache_equal_one_pass(model):
    """Whatever the place each row has reached."""
    ids = torch.randint(1, 300, (3, 9))
    whole = model(ids)
    ends = torch.tensor([3, 9, 6])
    cache = model.fused.new_cache(3, 9)
    for row, end in enumerate(ends.tolist()):
        for place in range(end - 1):  # one row alone; the others wait at their place 0
            tokens, places = ids[:, 0].clone(), torch.zeros(3, dtype=torch.long)
            tokens[row], places[row] = ids[row, place], place
            keep = [[t.clone() for t in part] for part in (cache.keys, cache.values)]
            model.fused.step(tokens, places, cache)
            for part, before in zip((cache.keys, cache.values), keep, strict=True):
                for now, old in zip(part, before, strict=True):
                    others = [i for i in range(3) if i != row]
                    now[others] = old[others]
    rows = torch.arange(3)
    states = model.fused.step(ids[rows, ends - 1], ends - 1, cache)
    torch.testing.assert_close(states, whole[rows, ends - 1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_logits_equal_transformers(model, tiny_decoder):
    """Before its first step of tuning a language model is the pretrained one."""
    for _, layer in lora_layers(model):
        layer.V.zero_()
    ids = torch.randint(1, 300, (2, 7))
    expected = AutoModelForCausalLM.from_pretrained(tiny_decoder)(input_ids=ids).logits
    torch.testing.assert_close(model.head(model(ids)), expected, rtol=1e-4, atol=1e-5)


def test_only_adapters_and_norms_are_tuned(model):
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(n.endswith((".U", ".V")) or "norm" in n or "ln_" in n for n in names)


@pytest.mark.parametrize("classes", [3, 256, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_softmax(classes, temperature):
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


def test_what_has_no_chance_is_never_drawn():
    logits = torch.full((500, 300), -torch.inf)
    logits[:, [0, 257, 299]] = 1.0
    drawn = draw(logits, 1.0, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 257, 299}


def test_the_number_drawn_at_the_very_end(monkeypatch):
    """Rounding may put a random number past the sum of all."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, 1.0 + 1e-6))
    logits = torch.zeros(2, 600)
    logits[:, 400:] = -torch.inf
    assert draw(logits, 1.0, torch.Generator()).tolist() == [399, 399]


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_first_tokens_come_with_their_probability(model, monkeypatch, slots):
    """Over a thousand sentences, however many are sampled side by side."""
    monkeypatch.setattr(sampling, "SLOTS", slots)
    with torch.no_grad():
        chances = model.head(model(torch.tensor([[model.start]])))[0, 0].softmax(0)
    sentences = 60 if slots == 1 else 1000
    found = tokens_of(sample(model, sentences, 5, 1.0, MAX_TOKENS))
    assert all(len(tokens) <= MAX_TOKENS and model.end not in tokens for tokens in found)
    # Whether a sentence ends at once is settled by its first draw.
    ended = sum(not tokens for tokens in found) / sentences
    expected = float(chances[model.end])
    assert abs(ended - expected) < 4 * (expected * (1 - expected) / sentences) ** 0.5 + 1e-3


def test_a_seed_settles_the_sentences(model):
    first, again = (tokens_of(sample(model, 40, 7, 1.0, MAX_TOKENS)) for _ in range(2))
    assert first == again
    assert first != tokens_of(sample(model, 40, 8, 1.0, MAX_TOKENS))


@torch.no_grad()
@pytest.mark.parametrize("slots", [3, 64])
def test_what_was_likely_comes_with_each_sentence(model, tiny_decoder, monkeypatch, slots):
    """As transformers has it, whichever slots restart and leave."""
    monkeypatch.setattr(sampling, "SLOTS", slots)
    for _, layer in lora_layers(model):
        layer.V.zero_()
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    found = list(sample(model, 40, 5, 1.0, MAX_TOKENS))
    assert max(len(one.tokens) for one in found) > 3
    for one in found:
        tokens, chances = one.top_k
        inner = max(len(one.tokens) - 1, 0)
        assert tokens.shape == chances.shape == (inner, TOP_K)
        logits = whole(torch.tensor([[model.start, *one.tokens]])).logits[0, 1 : inner + 1]
        logits[:, model.end] = -torch.inf
        expected, places = logits.softmax(1).topk(TOP_K)
        torch.testing.assert_close(chances.float(), expected, rtol=2e-3, atol=1e-5)
        torch.testing.assert_close(
            logits.softmax(1).gather(1, tokens.long()), expected, rtol=2e-3, atol=1e-5
        )
        assert (tokens == places).float().mean() > 0.9 or not inner  # but for ties


def test_likeliest_tokens_as_transformers_generates(model, tiny_decoder, monkeypatch):
    """At almost no temperature; rows restart and leave without disturbing the others."""
    monkeypatch.setattr(sampling, "SLOTS", 3)
    for _, layer in lora_layers(model):
        layer.V.data.zero_()
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    out = whole.generate(
        torch.tensor([[model.start]]),
        attention_mask=torch.ones(1, 1),
        do_sample=False,
        max_new_tokens=8,
        pad_token_id=0,
        eos_token_id=-1,
    )[0, 1:].tolist()
    model.end = out[-1]
    assert tokens_of(sample(model, 7, 0, 1e-4, 20)) == [out[: out.index(model.end)]] * 7
    model.end = -1
    assert tokens_of(sample(model, 7, 0, 1e-4, 20)) == []


def test_tuning_starts_from_transformers_loss_and_lowers_it(tiny_decoder):
    torch.manual_seed(0)
    tokens = [torch.randint(1, 50, (n,)).tolist() for n in (3, 5, 5, 8)]
    model = language_model(tiny_decoder)
    for _, layer in lora_layers(model):
        layer.V.data.zero_()
    settings = TrainSettings(batch_size=1, lr=1e-12)
    first = tune_language_model(model, tokens, settings, 1, 0, lambda done, what: None)
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    with torch.no_grad():
        rows = [torch.tensor([[model.start, *t, model.end]]) for t in tokens]
        losses = [whole(input_ids=row, labels=row).loss for row in rows]
    assert first == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    settings = TrainSettings(batch_size=2, lr=0.02)
    last = tune_language_model(model, tokens, settings, 15, 0, lambda done, what: None)
    assert last < 0.8 * first


def test_what_samples_is_what_was_tuned(tiny_decoder, tmp_path):
    """Its adapters are merged, the file keeps them apart; read again, it is the same."""
    train = SimpleNamespace(sentences=["The books are old.", "She thinks."] * 8)
    corpus: Any = SimpleNamespace(splits={"train": train})
    settings = TransferSettings(sampler_epochs=3), str(tiny_decoder), "fp32", corpus, tmp_path
    ids = torch.randint(1, 300, (2, 7))
    merged = [tuned_sampler(5, *settings)[0] for _ in range(2)]
    assert not list(lora_layers(merged[0]))
    apart = language_model(tiny_decoder)
    with torch.no_grad():
        for name, tensor in load_file(tmp_path / SAMPLER).items():
            apart.get_parameter(name).copy_(tensor)
        expected = apart.head(apart(ids))
        pretrained = merged[0].whole.from_pretrained(tiny_decoder)(input_ids=ids).logits
        assert (expected - pretrained).abs().max() > 0.01
        for model in merged:
            torch.testing.assert_close(model.head(model(ids)), expected, rtol=1e-3, atol=1e-4)


def test_padding_is_not_learned_from(tiny_decoder):
    """Sentences of unlike length in one batch: the loss is the mean over real tokens alone."""
    tokens = [[5, 6, 7], [8, 9, 10, 11, 12, 13]]
    model = language_model(tiny_decoder)
    settings = TrainSettings(batch_size=2, lr=1e-12)
    together = tune_language_model(model, tokens, settings, 1, 0, lambda done, what: None)
    alone = [
        tune_language_model(model, [t], settings, 1, 0, lambda done, what: None) for t in tokens
    ]
    assert together == pytest.approx((4 * alone[0] + 7 * alone[1]) / 11, rel=1e-4)


def test_a_decoder_that_is_not_written_out(tiny_gpt2):
    """Through transformers' own modules; bf16 as well."""
    model = language_model(tiny_gpt2)
    model.end = int(model.head(model(torch.tensor([[model.start]]))).argmax())
    expected = model(torch.tensor([[1, 2, 3]]))
    cast_frozen_to_bf16(model.whole)
    model.fuse()
    model.fused = None
    torch.testing.assert_close(
        model(torch.tensor([[1, 2, 3]])).float(), expected, rtol=0.1, atol=0.1
    )
    found = tokens_of(sample(model, 20, 1, 1.0, MAX_TOKENS))
    assert found
    assert all(len(tokens) <= MAX_TOKENS and model.end not in tokens for tokens in found)

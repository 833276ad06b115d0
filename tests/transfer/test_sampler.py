"""The sampler: how it is tuned, and that what was tuned samples."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.decoder.lora import lora_layers
from potstill.settings import TrainSettings
from potstill.transfer.sampler import SAMPLER, load_sampler, tune_language_model
from tests.transfer.language_models import language_model


def tune(
    model: LanguageModel, tokens: list[list[int]], settings: TrainSettings, epochs: int = 1
) -> float:
    return tune_language_model(model, tokens, settings, epochs=epochs, seed=0)


def test_tuning_starts_from_transformers_loss_and_lowers_it(tiny_decoder: BaseModel) -> None:
    torch.manual_seed(0)
    tokens = [torch.randint(1, 50, (n,)).tolist() for n in (3, 5, 5, 8)]
    model = language_model(tiny_decoder, adapters=False)
    first = tune(model, tokens, TrainSettings(batch_size=1, lr=1e-12))
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder.folder)
    with torch.no_grad():
        rows = [torch.tensor([[model.start, *t, model.end]]) for t in tokens]
        losses = [whole(input_ids=row, labels=row).loss for row in rows]
    assert first == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    last = tune(model, tokens, TrainSettings(batch_size=2, lr=0.02), epochs=15)
    assert last < 0.8 * first


def test_padding_is_not_learned_from(tiny_decoder: BaseModel) -> None:
    """In a batch of sentences of unlike length the loss is the mean over real tokens alone."""
    tokens = [[5, 6, 7], [8, 9, 10, 11, 12, 13]]
    model = language_model(tiny_decoder)
    settings = TrainSettings(batch_size=2, lr=1e-12)
    together = tune(model, tokens, settings)
    alone = [tune(model, [t], settings) for t in tokens]
    assert together == pytest.approx((4 * alone[0] + 7 * alone[1]) / 11, rel=1e-4)


def test_saved_sampler_is_the_tuned_one(tiny_decoder: BaseModel, tmp_path: Path) -> None:
    """Its adapters are merged, the file keeps them apart; loaded again, it is the same."""
    text = ["The books are old.", "She thinks."] * 8
    ids = torch.randint(1, 300, (2, 7))
    merged = [
        load_sampler(tmp_path, tiny_decoder, text, epochs=3, seed=5, precision="fp32").model
        for _ in range(2)
    ]
    assert not list(lora_layers(merged[0]))
    apart = language_model(tiny_decoder)
    with torch.no_grad():
        for name, tensor in load_file(tmp_path / SAMPLER).items():
            apart.get_parameter(name).copy_(tensor)
        expected = apart.head(apart(ids))
        pretrained = merged[0].whole.from_pretrained(tiny_decoder.folder)(input_ids=ids).logits
        assert (expected - pretrained).abs().max() > 0.01
        for model in merged:
            torch.testing.assert_close(model.head(model(ids)), expected, rtol=1e-3, atol=1e-4)


def test_another_sets_sampler_is_used_again(tiny_decoder: BaseModel, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    settings = {"epochs": 1, "seed": 5, "precision": "fp32"}
    load_sampler(first, tiny_decoder, ["The books are old."], **settings)
    load_sampler(second, tiny_decoder, ["She thinks."], earlier=first, **settings)
    assert (second / SAMPLER).read_bytes() == (first / SAMPLER).read_bytes()


def test_another_end_token_ends_sentences(tiny_decoder: BaseModel, tmp_path: Path) -> None:
    text = ["The books are old."]
    sampler = load_sampler(tmp_path, tiny_decoder, text, epochs=1, seed=5, end_token=7)
    assert sampler.model.end == 7
    assert sampler.model.start == sampler.tokenizer.bos_token_id != 7
    for sentence, targets in sampler.sample(50, 1, 1.0):
        assert targets is None or 7 not in targets.next_ids, sentence

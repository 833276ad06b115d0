"""The classifier against transformers and PEFT."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from potstill.decoder import classifier
from potstill.decoder.adapter import load_adapter_weights
from potstill.decoder.classifier import Classifier, build_lora_classifier, encode, parameter_counts
from potstill.decoder.lora import linear_names, merge, norm_names
from potstill.ops import attention
from potstill.recipes.console import parameter_line
from potstill.training.precision import cast_frozen_to_bf16
from tests.decoder.conftest import (
    ALPHA,
    CLASSES,
    CLOSE,
    RANK,
    logits_of,
    peft_reference,
    pefts_name,
    pretrained_reference,
    trainable,
    tuned,
)


@pytest.fixture(params=["fused", "fused, PyTorch's attention", "transformers"])
def forward_path(request, monkeypatch):
    """Each of the code paths that compute a decoder's hidden states."""
    if request.param == "fused, PyTorch's attention":
        monkeypatch.setattr(attention, "PLAIN_ATTENTION_TOKENS", 0)
    elif request.param == "transformers":
        monkeypatch.setattr(classifier, "fuse_decoder", lambda base: None)


@pytest.mark.usefixtures("forward_path")
def test_logits_and_gradients_are_pefts(tiny_decoder, batch):
    model, reference = tuned(tiny_decoder), peft_reference(tiny_decoder).eval()
    ours, theirs = trainable(model), trainable(reference)
    assert {pefts_name(model, name) for name in ours} == set(theirs)
    with torch.no_grad():
        for name, value in ours.items():
            theirs[pefts_name(model, name)].copy_(value)
    mask = (torch.arange(12) < batch.lengths[:, None]).long()
    logits = model(batch.input_ids, batch.lengths)
    expected = reference(input_ids=batch.input_ids, attention_mask=mask).logits
    torch.testing.assert_close(logits, expected, **CLOSE)
    labels = torch.arange(12) % CLASSES
    nn.functional.cross_entropy(logits, labels).backward()
    nn.functional.cross_entropy(expected, labels).backward()
    for name, value in ours.items():
        assert value.grad.abs().max() > 1e-4
        torch.testing.assert_close(value.grad, theirs[pefts_name(model, name)].grad, **CLOSE)


@pytest.mark.usefixtures("forward_path")
def test_starts_as_exactly_the_pretrained_model(tiny_decoder, batch):
    model = build_lora_classifier(tiny_decoder.base(), CLASSES, rank=RANK, alpha=ALPHA).eval()
    assert not model.score.weight.any()  # its head says nothing yet
    nn.init.normal_(model.score.weight)
    plain = Classifier(tiny_decoder.base().requires_grad_(False), CLASSES).eval()
    plain.score.load_state_dict(model.score.state_dict())
    logits = logits_of(model, batch)
    assert torch.equal(logits, logits_of(plain, batch))
    reference = pretrained_reference(tiny_decoder)
    reference.score.load_state_dict(model.score.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(logits, reference(batch.input_ids).logits, **CLOSE)


def test_an_unfrozen_base_gets_gradients(tiny_decoder, batch):
    model = Classifier(tiny_decoder.base(), CLASSES)
    nn.init.normal_(model.score.weight)
    model(batch.input_ids, batch.lengths).sum().backward()
    assert all(model.base.get_submodule(n).weight.grad.any() for n in linear_names(model.base))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_adapters_norms_and_head_are_trained(tiny_decoder, dropout):
    base = tiny_decoder.base()
    linear = linear_names(base)
    norms = [
        f"{m}.{p}" for m in norm_names(base) for p, _ in base.get_submodule(m).named_parameters()
    ]
    model = build_lora_classifier(base, CLASSES, rank=RANK, alpha=ALPHA, dropout=dropout)
    expected = {f"base.{name}.{matrix}" for name in linear for matrix in "UV"}
    expected |= {f"base.{name}" for name in norms} | {"score.weight"}
    assert set(trainable(model)) == expected


def test_gpt2_has_the_counts_of_the_original():
    with torch.device("meta"):
        base = GPT2Model(GPT2Config())
        model = build_lora_classifier(base, classes=2, rank=4, alpha=8.0)
    total, trained = parameter_counts(model)
    assert (total, trained) == (125_031_168, 629_760)
    line = parameter_line(total, trained)
    assert line == "parameters: 125.03M in total, 0.63M trainable (99.5 % fewer)"


@pytest.mark.usefixtures("forward_path")
def test_padding_changes_nothing(tiny_decoder, batch, random_tokens):
    model = tuned(tiny_decoder)
    with torch.no_grad():
        together = model(batch.input_ids, batch.lengths)
        alone = [
            model(torch.tensor([tokens]), torch.tensor([len(tokens)]))
            for tokens in random_tokens(range(1, 13))
        ]
        torch.testing.assert_close(together, torch.cat(alone), **CLOSE)
        padding = torch.arange(12) >= batch.lengths[:, None]
        batch.input_ids[padding] = torch.randint(0, 256, (int(padding.sum()),))
        refilled = model(batch.input_ids, batch.lengths)
    torch.testing.assert_close(together, refilled, rtol=0, atol=1e-6)
    assert together.std(0).min() > 1e-2  # sentences do differ


@pytest.mark.usefixtures("forward_path")
def test_a_later_token_changes_no_earlier_state(tiny_decoder, batch):
    """Scored at a length short of its end, a sentence is scored as if it ended there."""
    model = tuned(tiny_decoder)
    ids = batch.input_ids[-1:]
    with torch.no_grad():
        cut = model(ids[:, :5], torch.tensor([5]))
        torch.testing.assert_close(model(ids, torch.tensor([5])), cut, **CLOSE)


# The snapshot of the frozen weights must not outlive them.
USED = pytest.mark.parametrize("used_before", [False, True], ids=["fresh", "used"])


@USED
def test_cast_to_bf16_keeps_trained_weights_and_stays_within_bf16_noise(
    tiny_decoder, batch, used_before
):
    exact = logits_of(tuned(tiny_decoder), batch)
    model = tuned(tiny_decoder)
    if used_before:
        logits_of(model, batch)
    cast_frozen_to_bf16(model.base)
    for parameter in model.parameters():
        expected = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == expected
    logits = model(batch.input_ids, batch.lengths)
    assert logits.dtype == torch.float32
    assert 0 < (logits - exact).norm() / exact.norm() < 0.03
    logits.square().sum().backward()
    for parameter in trainable(model).values():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.abs().max() > 0


@USED
def test_merged_gives_the_same_logits(tiny_decoder, batch, used_before):
    expected = logits_of(tuned(tiny_decoder), batch)
    model = tuned(tiny_decoder)
    if used_before:
        logits_of(model, batch)
    merge(model.base)
    torch.testing.assert_close(logits_of(model, batch), expected, **CLOSE)
    assert linear_names(model.base) == linear_names(tiny_decoder.base())


@USED
def test_weights_loaded_later_count(tiny_decoder, batch, adapter, used_before):
    model = build_lora_classifier(tiny_decoder.base(), CLASSES, rank=RANK, alpha=ALPHA).eval()
    if used_before:
        logits_of(model, batch)
    load_adapter_weights(model, adapter)
    assert torch.equal(logits_of(model, batch), logits_of(tuned(tiny_decoder), batch))


@pytest.mark.usefixtures("forward_path")
def test_training_mode_leaves_the_frozen_base_in_evaluation(tiny_decoder, batch):
    """GPT-2's own dropouts stay off; LoRA's is on."""
    without, with_dropout = tuned(tiny_decoder), tuned(tiny_decoder, dropout=0.5)
    assert torch.equal(logits_of(without.train(), batch), logits_of(without.eval(), batch))
    evaluated = logits_of(with_dropout, batch)
    torch.testing.assert_close(evaluated, logits_of(without, batch), **CLOSE)
    assert not torch.equal(logits_of(with_dropout.train(), batch), evaluated)
    assert torch.equal(logits_of(with_dropout.eval(), batch), evaluated)


def test_encode_cuts_and_counts(tiny_decoder):
    tokenizer = tiny_decoder.tokenizer()
    sentences = ["The books on the table are old.", "She."]
    whole, none = encode(tokenizer, sentences, 128)
    assert none == 0
    assert [tokenizer.decode(tokens) for tokens in whole] == sentences
    assert encode(tokenizer, sentences, 3) == ([tokens[:3] for tokens in whole], 1)
    started = [[7, *tokens] for tokens in whole]
    assert encode(tokenizer, sentences, 128, start=7) == (started, 0)
    assert encode(tokenizer, sentences, 3, start=7) == ([tokens[:3] for tokens in started], 1)


@torch.no_grad()
def test_logits_after_each_token_are_those_of_the_sentence_cut_there(
    tiny_decoder, random_tokens, monkeypatch
):
    model = Classifier(tiny_decoder.base(), 3).eval()
    torch.nn.init.normal_(model.score.weight)
    (ids,) = random_tokens([9])
    actual = model.logits_after_each_token(torch.tensor([ids, ids[::-1]]))[0]
    one_by_one = [
        model(torch.tensor([ids[:n]]), torch.tensor([n]))[0] for n in range(1, len(ids) + 1)
    ]
    torch.testing.assert_close(actual, torch.stack(one_by_one), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(Classifier, "_fused_base", lambda self: None)
    plain = model.logits_after_each_token(torch.tensor([ids]))[0]
    torch.testing.assert_close(plain, actual, rtol=1e-4, atol=1e-5)

"""The classifier and its adapters against transformers and PEFT."""

import dataclasses
import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2Model

from potstill import UserError, attention, classifier
from potstill.batching import collate
from potstill.classifier import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Classifier,
    encode,
    load_adapter,
    load_adapter_weights,
    parameter_counts,
    save_adapter,
    tunable_classifier,
)
from potstill.decoder import find_decoder
from potstill.lora import halve_frozen, linear_names, merge, norm_names
from potstill.reporting import parameter_line

CLASSES, RANK, ALPHA = 3, 4, 6.0
LINEAR = {
    "tiny-gpt2": ["c_attn", "c_proj", "c_fc"],
    "tiny-llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
NORMS = {
    "tiny-gpt2": ["ln_1", "ln_2", "ln_f"],
    "tiny-llama": ["input_layernorm", "post_attention_layernorm", "norm"],
}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 1) -> None:
    """Moves all that is trained away from where it started."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def tuned(decoder, dropout=0.0) -> Classifier:
    """A classifier of ours as after training; the same at every call."""
    torch.manual_seed(0)
    model = tunable_classifier(decoder.base(), CLASSES, RANK, ALPHA, dropout)
    randomise(model)
    return model.eval()


def pretrained_reference(decoder) -> nn.Module:
    """transformers' own classifier on the same base; token 0 is its padding."""
    return AutoModelForSequenceClassification.from_pretrained(
        decoder.folder, num_labels=CLASSES, pad_token_id=0, dtype=torch.float32
    ).eval()


def peft_config(decoder, **changes) -> peft.LoraConfig:
    settings = {
        "task_type": "SEQ_CLS",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": LINEAR[decoder.title],
        "modules_to_save": [*NORMS[decoder.title], "score"],
        "fan_in_fan_out": decoder.title == "tiny-gpt2",
    }
    return peft.LoraConfig(**settings | changes)


def peft_reference(decoder, **changes) -> nn.Module:
    return peft.get_peft_model(pretrained_reference(decoder), peft_config(decoder, **changes))


def pefts_name(model: Classifier, name: str) -> str:
    """What PEFT calls a trainable parameter of ours."""
    if name == "score.weight":
        return "base_model.model.score.modules_to_save.default.weight"
    module, kind = name.removeprefix("base.").rsplit(".", 1)
    kinds = {"U": "lora_A.default.weight", "V": "lora_B.default.weight"}
    kind = kinds.get(kind, f"modules_to_save.default.{kind}")
    return f"base_model.model.{model.base.base_model_prefix}.{module}.{kind}"


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def batch(random_tokens):
    """Sentences of 1 to 12 tokens, padded."""
    return collate(random_tokens(range(1, 13)), range(12))


@pytest.fixture
def adapter(tiny_decoder, tmp_path):
    """Folder of an adapter of ours."""
    save_adapter(tuned(tiny_decoder), tmp_path, str(tiny_decoder.folder))
    return tmp_path


def logits_of(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model(batch.input_ids, batch.lengths)


@pytest.fixture(params=["written out", "written out, PyTorch's attention", "transformers"])
def way(request, monkeypatch):
    """Each way that a decoder's hidden states are computed."""
    if request.param == "written out, PyTorch's attention":
        monkeypatch.setattr(attention, "PLAIN_ATTENTION_TOKENS", 0)
    elif request.param == "transformers":
        monkeypatch.setattr(classifier, "take_apart", lambda base: None)


@pytest.mark.usefixtures("way")
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


@pytest.mark.usefixtures("way")
def test_starts_as_exactly_the_pretrained_model(tiny_decoder, batch):
    model = tunable_classifier(tiny_decoder.base(), CLASSES, RANK, ALPHA).eval()
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


def test_a_base_trained_whole_gets_its_gradients(tiny_decoder, batch):
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
    model = tunable_classifier(base, CLASSES, RANK, ALPHA, dropout)
    expected = {f"base.{name}.{matrix}" for name in linear for matrix in "UV"}
    expected |= {f"base.{name}" for name in norms} | {"score.weight"}
    assert set(trainable(model)) == expected


def test_gpt2_has_the_counts_of_the_original():
    with torch.device("meta"):
        base = GPT2Model(GPT2Config())
        model = tunable_classifier(base, classes=2, rank=4, alpha=8.0)
    total, trained = parameter_counts(model)
    assert (total, trained) == (125_031_168, 629_760)
    line = parameter_line(total, trained)
    assert line == "parameters: 125.03M in all, 0.63M trainable (99.5 % fewer)"


@pytest.mark.usefixtures("way")
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


@pytest.mark.usefixtures("way")
def test_a_later_token_changes_no_earlier_state(tiny_decoder, batch):
    """Scored at a length short of its end, a sentence is scored as if it ended there."""
    model = tuned(tiny_decoder)
    ids = batch.input_ids[-1:]
    with torch.no_grad():
        cut = model(ids[:, :5], torch.tensor([5]))
        torch.testing.assert_close(model(ids, torch.tensor([5])), cut, **CLOSE)


# What a model keeps ready of its frozen weights must not outlive them.
USED = pytest.mark.parametrize("used_before", [False, True], ids=["fresh", "used"])


@USED
def test_halved_keeps_what_is_trained_and_stays_within_bf16_noise(tiny_decoder, batch, used_before):
    exact = logits_of(tuned(tiny_decoder), batch)
    model = tuned(tiny_decoder)
    if used_before:
        logits_of(model, batch)
    halve_frozen(model.base)
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
    model = tunable_classifier(tiny_decoder.base(), CLASSES, RANK, ALPHA).eval()
    if used_before:
        logits_of(model, batch)
    load_adapter_weights(model, adapter)
    assert torch.equal(logits_of(model, batch), logits_of(tuned(tiny_decoder), batch))


@pytest.mark.usefixtures("way")
def test_training_mode_leaves_the_frozen_base_in_evaluation(tiny_decoder, batch):
    """GPT-2's own dropouts stay off; LoRA's is on."""
    without, with_dropout = tuned(tiny_decoder), tuned(tiny_decoder, dropout=0.5)
    assert torch.equal(logits_of(without.train(), batch), logits_of(without.eval(), batch))
    settled = logits_of(with_dropout, batch)
    torch.testing.assert_close(settled, logits_of(without, batch), **CLOSE)
    assert not torch.equal(logits_of(with_dropout.train(), batch), settled)
    assert torch.equal(logits_of(with_dropout.eval(), batch), settled)


# Adapters in files.


def edit_config(folder, **changes) -> None:
    file = folder / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def drop_tensor(folder, ending) -> str:
    """Takes the last tensor with this ending out of an adapter's file."""
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    key = sorted(key for key in tensors if key.endswith(ending))[-1]
    del tensors[key]
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    return key


def refusal(decoder, folder) -> str:
    """What the user is told when an adapter is not taken: a sentence that names the folder."""
    with pytest.raises(UserError) as caught:
        load_adapter(decoder.base(), folder)
    message = str(caught.value)
    assert str(folder) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_ours_round_trips_exactly(tiny_decoder, tmp_path, batch):
    model = tuned(tiny_decoder, dropout=0.25)
    save_adapter(model, tmp_path, str(tiny_decoder.folder))
    loaded = load_adapter(tiny_decoder.base(), tmp_path)
    assert not loaded.training
    expected, tensors = model.state_dict(), loaded.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())
    with torch.no_grad():
        logits = loaded(batch.input_ids, batch.lengths)
        assert torch.equal(logits, model(batch.input_ids, batch.lengths))


def test_a_loaded_adapter_can_be_saved_again(tiny_decoder, adapter, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    loaded = load_adapter(tiny_decoder.base(), adapter)
    save_adapter(loaded, again, str(tiny_decoder.folder))
    assert (again / ADAPTER_CONFIG).read_text() == (adapter / ADAPTER_CONFIG).read_text()
    assert load_file(again / ADAPTER_WEIGHTS).keys() == load_file(adapter / ADAPTER_WEIGHTS).keys()


def test_weights_go_back_into_a_model_in_training(tiny_decoder, adapter):
    model = tunable_classifier(tiny_decoder.base(), CLASSES, RANK, ALPHA)
    load_adapter_weights(model, adapter)
    expected = trainable(tuned(tiny_decoder))
    assert all(torch.equal(expected[name], value) for name, value in trainable(model).items())


def test_only_what_was_trained_is_written(tiny_decoder, adapter):
    model = tuned(tiny_decoder)
    written = load_file(adapter / ADAPTER_WEIGHTS)
    assert len(written) == len(trainable(model))
    assert sum(t.numel() for t in written.values()) == parameter_counts(model)[1]


def test_config_says_what_was_trained(tiny_decoder, adapter):
    kind = tiny_decoder.title
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    assert config["r"] == RANK
    assert config["lora_alpha"] == ALPHA
    assert config["target_modules"] == sorted(LINEAR[kind])
    assert config["modules_to_save"] == sorted([*NORMS[kind], "score"])
    assert config["fan_in_fan_out"] == (kind == "tiny-gpt2")
    assert config["base_model_name_or_path"] == str(tiny_decoder.folder)
    assert config["lora_dropout"] == 0
    assert config["task_type"] == "SEQ_CLS"
    known = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert set(config) <= known


def test_peft_loads_ours(tiny_decoder, adapter, batch):
    reference = pretrained_reference(tiny_decoder)
    loaded = peft.PeftModel.from_pretrained(reference, adapter).eval()
    model = tuned(tiny_decoder)
    with torch.no_grad():
        logits = loaded(input_ids=batch.input_ids).logits
        torch.testing.assert_close(logits, model(batch.input_ids, batch.lengths), **CLOSE)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"modules_to_save": ["score"]},
        {"modules_to_save": None},
        {"layers_to_transform": [1]},
        {"lora_dropout": 0.2},
        {"init_lora_weights": "gaussian"},
        {"r": 1, "lora_alpha": 3},
    ],
    ids=lambda changes: ", ".join(changes) or "everything",
)
def test_ours_loads_pefts(tiny_decoder, tmp_path, batch, changes):
    reference = peft_reference(tiny_decoder, **changes).eval()
    randomise(reference)
    reference.save_pretrained(tmp_path)
    model = load_adapter(tiny_decoder.base(), tmp_path)
    with torch.no_grad():
        expected = reference(input_ids=batch.input_ids).logits
        torch.testing.assert_close(model(batch.input_ids, batch.lengths), expected, **CLOSE)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"rank_pattern": {"up_proj": 2, "c_fc": 2}},
        {"alpha_pattern": {"up_proj": 2, "c_fc": 2}},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
    ],
    ids=lambda changes: " ".join(map(str, next(iter(changes.items())))),
)
@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match")
def test_pefts_variants_are_refused_or_right(tiny_decoder, tmp_path, batch, changes):
    """What is not plain LoRA may be refused; it is never computed wrongly."""
    torch.manual_seed(0)
    reference = peft_reference(tiny_decoder, **changes).eval()
    randomise(reference)
    reference.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = reference(input_ids=batch.input_ids).logits
        try:
            model = load_adapter(tiny_decoder.base(), tmp_path)
        except UserError as error:
            assert str(tmp_path) in str(error)
        else:
            torch.testing.assert_close(model(batch.input_ids, batch.lengths), expected, **CLOSE)


def test_no_adapter_there(tiny_decoder, tmp_path):
    assert ADAPTER_CONFIG in refusal(tiny_decoder, tmp_path)


@pytest.mark.parametrize("file", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_file(tiny_decoder, adapter, file, share):
    body = (adapter / file).read_bytes()
    (adapter / file).write_bytes(body[: int(share * len(body))])
    assert file in refusal(tiny_decoder, adapter)


def test_weights_missing(tiny_decoder, adapter):
    (adapter / ADAPTER_WEIGHTS).unlink()
    assert ADAPTER_WEIGHTS in refusal(tiny_decoder, adapter)


def test_no_head(tiny_decoder, adapter):
    drop_tensor(adapter, "score.weight")
    assert "score.weight" in refusal(tiny_decoder, adapter)


@pytest.mark.parametrize("ending", ["lora_A.weight", "lora_B.weight"])
def test_one_matrix_missing(tiny_decoder, adapter, ending):
    drop_tensor(adapter, ending)
    refusal(tiny_decoder, adapter)


def test_one_norm_missing(tiny_decoder, adapter):
    key = drop_tensor(adapter, f"{NORMS[tiny_decoder.title][-1]}.weight")
    assert key.removeprefix("base_model.model.") in refusal(tiny_decoder, adapter)


def test_foreign_tensor(tiny_decoder, adapter):
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    save_file(tensors | {"base_model.model.stray.weight": torch.ones(2)}, adapter / ADAPTER_WEIGHTS)
    assert "stray.weight" in refusal(tiny_decoder, adapter)


@pytest.mark.parametrize(
    ("key", "value"), [("use_dora", True), ("use_rslora", True), ("init_lora_weights", "olora")]
)
def test_variants_are_named(tiny_decoder, adapter, key, value):
    edit_config(adapter, **{key: value})
    assert key in refusal(tiny_decoder, adapter)


def test_other_methods_are_named(tiny_decoder, adapter):
    edit_config(adapter, peft_type="IA3")
    assert "IA3" in refusal(tiny_decoder, adapter)


def test_other_rank_than_the_files(tiny_decoder, adapter):
    edit_config(adapter, r=RANK + 1)
    refusal(tiny_decoder, adapter)


def test_adapter_of_a_wider_base(tiny_decoder, tmp_path):
    config = tiny_decoder.base().config
    config.hidden_size *= 2  # GPT-2's n_embd goes by this name too
    wide = type(tiny_decoder.base())(config)
    save_adapter(tunable_classifier(wide, CLASSES, RANK, ALPHA), tmp_path, "wide")
    assert "another base" in refusal(tiny_decoder, tmp_path)


def test_adapter_of_another_family(tiny_gpt2, tiny_llama, tmp_path):
    save_adapter(tuned(find_decoder(str(tiny_gpt2))), tmp_path, str(tiny_gpt2))
    assert "another base" in refusal(find_decoder(str(tiny_llama)), tmp_path)


def test_encode_cuts_and_counts(tiny_decoder):
    tokenizer = tiny_decoder.tokenizer()
    sentences = ["The books on the table are old.", "She."]
    whole, none = encode(tokenizer, sentences, 128)
    assert none == 0
    assert [tokenizer.decode(tokens) for tokens in whole] == sentences
    assert encode(tokenizer, sentences, 3) == ([tokens[:3] for tokens in whole], 1)
    begun = [[7, *tokens] for tokens in whole]
    assert encode(tokenizer, sentences, 128, start=7) == (begun, 0)
    assert encode(tokenizer, sentences, 3, start=7) == ([tokens[:3] for tokens in begun], 1)

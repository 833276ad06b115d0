"""Adapters on disk, ours and PEFT's."""

import dataclasses
import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from potstill.decoder.adapter import load_adapter, load_adapter_weights, save_adapter, teacher_hash
from potstill.decoder.classifier import build_lora_classifier, parameter_counts
from potstill.decoder.hub import find_base_model
from potstill.errors import UserError
from potstill.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.decoder.conftest import (
    ALPHA,
    CLASSES,
    CLOSE,
    LINEAR,
    NORMS,
    RANK,
    peft_reference,
    pretrained_reference,
    randomise,
    trainable,
    tuned,
)


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
    """The error for an adapter that is refused: one sentence that names the folder."""
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
    model = build_lora_classifier(tiny_decoder.base(), CLASSES, rank=RANK, alpha=ALPHA)
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
    """A variant of LoRA may be refused, but is never computed wrongly."""
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
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_truncated_file(tiny_decoder, adapter, file, fraction):
    body = (adapter / file).read_bytes()
    (adapter / file).write_bytes(body[: int(fraction * len(body))])
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
    save_adapter(build_lora_classifier(wide, CLASSES, rank=RANK, alpha=ALPHA), tmp_path, "wide")
    assert "name the right base" in refusal(tiny_decoder, tmp_path)


def test_adapter_of_another_family(tiny_gpt2, tiny_llama, tmp_path):
    save_adapter(tuned(find_base_model(str(tiny_gpt2))), tmp_path, str(tiny_gpt2))
    assert "name the right base" in refusal(find_base_model(str(tiny_llama)), tmp_path)


def test_hash_tells_teachers_apart(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    hashes = [
        teacher_hash("base", first, 128, None),
        teacher_hash("base", second, 128, None),
        teacher_hash("esab", first, 128, None),
        teacher_hash("base", first, 64, None),
        teacher_hash("base", first, 128, 0),
    ]
    assert len(set(hashes)) == 5
    assert teacher_hash("base", first, 128, None) == hashes[0]

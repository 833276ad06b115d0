"""Classifiers of ours and of PEFT's, to compare."""

import peft
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from potstill.data.batching import collate
from potstill.decoder.adapter import save_adapter
from potstill.decoder.classifier import Classifier, build_lora_classifier

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
    model = build_lora_classifier(decoder.base(), CLASSES, rank=RANK, alpha=ALPHA, dropout=dropout)
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

"""Tiny decoders as language models."""

import torch
from transformers import AutoModelForCausalLM

from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.decoder.lora import lora_layers
from potstill.settings import LoRASettings


def language_model(decoder: BaseModel, adapters: bool = True) -> LanguageModel:
    """Return a language model, with adapters that change what it computes or with zero ones."""
    torch.manual_seed(3)
    model = LanguageModel(decoder.language_model(), decoder.tokenizer(), LoRASettings())
    if adapters:
        with torch.no_grad():
            for _, layer in lora_layers(model):
                layer.V.normal_(std=0.1)
    model.fuse()
    return model.eval()


@torch.no_grad()
def most_probable_first_token(model: LanguageModel) -> int:
    """Return a token that, as the end of sentences, makes them short."""
    return int(model.head(model(torch.tensor([[model.start]]))).argmax())


def greedy_tokens(model: LanguageModel, decoder: BaseModel) -> list[int]:
    """Return the first eight tokens that transformers decodes greedily, and make `model`, whose
    base `decoder` is, compute the same: without adapters."""
    for _, layer in lora_layers(model):
        layer.V.data.zero_()
    whole = AutoModelForCausalLM.from_pretrained(decoder.folder)
    return whole.generate(
        torch.tensor([[model.start]]),
        attention_mask=torch.ones(1, 1),
        do_sample=False,
        max_new_tokens=8,
        pad_token_id=0,
        eos_token_id=-1,
    )[0, 1:].tolist()

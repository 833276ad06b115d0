"""Tiny decoders as language models."""

import torch

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

"""A decoder as a language model that LoRA can tune."""

from typing import Any

import torch
from torch import Tensor, nn

from potstill.decoder.fused_decoder import fuse_decoder
from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.lora import add_lora, linear_names, norm_names
from potstill.settings import LoRASettings


class LanguageModel(nn.Module):
    """A decoder of transformers with its vocabulary head, frozen, LoRA on every linear layer of its
    blocks and trainable norms; `start` and `end` are the tokens around a sentence."""

    def __init__(self, whole: Any, tokenizer: Any, lora: LoRASettings):
        super().__init__()
        whole.requires_grad_(False)
        self.whole, self.base = whole, whole.base_model
        add_lora(self.base, linear_names(self.base), lora.LoRA_rank, lora.alpha, lora.LoRA_dropout)
        for name in norm_names(self.base):
            self.base.get_submodule(name).requires_grad_(True)
        self.end: int = tokenizer.eos_token_id
        self.start: int = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    def fuse(self) -> None:
        """Takes the snapshot of the frozen weights that everything is computed from."""
        self.fused = fuse_decoder(self.base)
        self.head = FusedLinear([self.whole.get_output_embeddings()])

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) tokens to (B, L, width) hidden states."""
        if self.fused:
            return self.fused.hidden(input_ids)
        half = self.base.dtype == torch.bfloat16
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=half):
            return self.base(input_ids=input_ids, use_cache=False).last_hidden_state

"""A decoder as a language model that LoRA can tune."""

from typing import Any

from torch import Tensor, nn

from potstill.decoder.base import hidden_states
from potstill.decoder.fused_decoder import fuse_decoder
from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.lora import apply_lora
from potstill.settings import LoRASettings


class LanguageModel(nn.Module):
    """A decoder of transformers with its vocabulary head, frozen, LoRA on every linear layer of its
    blocks and trainable norms; `start` and `end` are the tokens around a sentence."""

    def __init__(self, whole: Any, tokenizer: Any, lora: LoRASettings):
        super().__init__()
        whole.requires_grad_(False)
        self.whole, self.base = whole, whole.base_model
        apply_lora(self.base, lora.LoRA_rank, lora.alpha, lora.LoRA_dropout)
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
        return hidden_states(self.base, input_ids)

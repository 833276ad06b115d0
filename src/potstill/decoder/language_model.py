"""A decoder with its vocabulary head, which LoRA tunes as a language model."""

from typing import Any

from torch import Tensor, nn

from potstill.decoder.base import hidden_states
from potstill.decoder.fused_decoder import fuse_decoder
from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.lora import apply_lora
from potstill.settings import LoRASettings


class LanguageModel(nn.Module):
    """A decoder with its vocabulary head, frozen, but for LoRA on every linear layer and the norms.

    `start` and `end` are the tokens around a sentence. Call `fuse` before the first forward pass.

    Args:
        whole: a causal language model of transformers.
        tokenizer: its tokenizer.
        lora: rank, alpha and dropout of LoRA.
        end_token: the token that ends a sentence. Default: the tokenizer's end of text.
    """

    def __init__(
        self, whole: Any, tokenizer: Any, lora: LoRASettings, end_token: int | None = None
    ):
        super().__init__()
        whole.requires_grad_(False)
        self.whole, self.base = whole, whole.base_model
        apply_lora(self.base, lora.LoRA_rank, lora.alpha, lora.LoRA_dropout)
        eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
        self.end: int = eos if end_token is None else end_token
        self.start: int = eos if bos is None else bos

    def fuse(self) -> None:
        """Take the snapshot of the frozen weights that everything is computed from.

        Call it again after changing them.
        """
        self.fused = fuse_decoder(self.base)
        self.head = FusedLinear([self.whole.get_output_embeddings()])

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map (B, L) tokens to (B, L, width) hidden states."""
        if self.fused:
            return self.fused.hidden(input_ids)
        return hidden_states(self.base, input_ids)

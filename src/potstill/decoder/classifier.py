"""A decoder that classifies: a head reads the hidden state at the last real token."""

from typing import Any

import torch
from torch import Tensor, nn

from potstill.data.text import word_ends
from potstill.decoder.base import hidden_states
from potstill.decoder.fused_decoder import FusedDecoder, fuse_decoder
from potstill.decoder.lora import LOCK, apply_lora, lora_layers

MICROBATCH_TOKENS = 256  # that a thread passes through a decoder at once, in training


class Classifier(nn.Module):
    """`base`, a decoder of transformers without vocabulary head, and `score`, a linear head
    without bias (Radford et al. 2018, *Improving Language Understanding by Generative
    Pre-Training*, section 3.2), as in transformers' own GPT2ForSequenceClassification."""

    def __init__(self, base: Any, classes: int):
        super().__init__()
        self.base = base
        self.score = nn.Linear(base.config.hidden_size, classes, bias=False)
        # A decoder's states are large: random weights would begin with sure answers, and a loss
        # far above that of none.
        nn.init.zeros_(self.score.weight)
        # A snapshot of the base, and the state of the frozen weights that it was taken in.
        self._blocks: FusedDecoder | None = None
        self._taken_apart: list[Any] = []

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) tokens, padded on the right, and their (B,) lengths to (B, classes) logits.

        No mask: attention is causal, so no real token sees the padding behind it.
        """
        if blocks := self._parts():
            last = blocks.last_hidden(input_ids, lengths)
        else:
            last = self.plain_last_hidden(input_ids, lengths)
        return self.score(last.to(self.score.weight.dtype))

    def logits_after_each_token(self, input_ids: Tensor) -> Tensor:
        """(B, L) tokens to (B, L, classes): the logits of a sentence that would end with each."""
        blocks = self._parts()
        hidden = blocks.hidden(input_ids) if blocks else self._plain_hidden(input_ids)
        return self.score(hidden.to(self.score.weight.dtype))

    def plain_last_hidden(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, width) hidden states at the last real tokens, by transformers' own modules: the way
        for a decoder that `fused_decoder` has not written out, and what that is tested against."""
        hidden = self._plain_hidden(input_ids)
        return hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1]

    def _plain_hidden(self, input_ids: Tensor) -> Tensor:
        return hidden_states(self.base, input_ids)

    def _parts(self) -> FusedDecoder | None:
        """The base taken apart, anew where its frozen weights have changed."""
        frozen = [p for p in self.base.parameters() if not p.requires_grad]
        state = [(p.data_ptr(), p._version, p.dtype) for p in frozen]
        with LOCK:
            if state != self._taken_apart:
                self._blocks, self._taken_apart = fuse_decoder(self.base), state
            return self._blocks

    def train(self, mode: bool = True) -> "Classifier":
        """The frozen base keeps to evaluation mode: of dropouts only LoRA's own is in use."""
        super().train(mode)
        self.base.eval()
        for _, layer in lora_layers(self.base):
            layer.train(mode)
        return self


def build_lora_classifier(
    base: Any, classes: int, rank: int, alpha: float, dropout: float = 0.0
) -> Classifier:
    """LoRA on every linear layer of every block; LayerNorms and head trainable, all else frozen."""
    model = Classifier(base, classes)
    apply_lora(base, rank, alpha, dropout)
    return model


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """All and trainable parameters; tied weights count once."""
    total = sum(p.numel() for p in model.parameters())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)


def encode(
    tokenizer: Any, sentences: list[str], max_length: int, start: int | None = None
) -> tuple[list[list[int]], int]:
    """Tokens of each sentence and how many sentences were cut at `max_length` tokens.

    start: a token to put before each. Decoders attend to their first token whatever it is (Xiao et
    al. 2024, *Efficient Streaming Language Models with Attention Sinks*, section 3.1), so it had
    better not be the sentence's first word.
    """
    tokens = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    if start is not None:
        tokens = [[start, *t] for t in tokens]
    cut = sum(len(t) > max_length for t in tokens)
    return [t[:max_length] for t in tokens], cut


def word_end_positions(
    tokenizer: Any, sentences: list[str], max_length: int, start: int | None = None
) -> list[list[int]]:
    """Of each sentence the places of its words' last tokens among those that `encode` gives."""
    begun = int(start is not None)
    offsets = tokenizer(sentences, add_special_tokens=False, return_offsets_mapping=True)
    found = []
    for sentence, spans in zip(sentences, offsets["offset_mapping"], strict=True):
        ends = [end for _, end in spans[: max_length - begun]]
        found.append([place + begun for place in word_ends(sentence, ends)])
    return found

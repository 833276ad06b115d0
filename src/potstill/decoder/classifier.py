"""A decoder that classifies: a head reads the hidden state at the last real token."""

import logging
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from potstill.data.text import ragged_word_ends
from potstill.data.token_array import TokenArray, positions_of
from potstill.decoder.base import hidden_states
from potstill.decoder.fused_decoder import FusedDecoder, fuse_decoder
from potstill.decoder.lora import LOCK, apply_lora, lora_layers
from potstill.errors import UserError

MICROBATCH_TOKENS = 256  # that a thread passes through a decoder at once, in training
MOST_PADDING = 0.1  # fraction of a sentence's positions, in `logits_at`

logger = logging.getLogger(__name__)
# Of models for which the device's memory was too small, so that each is told of once.
_tokens_that_fit: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class Classifier(nn.Module):
    """A decoder with a linear head without bias that reads the state at the last real token.

    Radford et al. 2018, *Improving Language Understanding by Generative Pre-Training*, section 3.2,
    as in transformers' GPT2ForSequenceClassification.

    Args:
        base: a decoder of transformers without vocabulary head.
        classes: number of classes.
    """

    def __init__(self, base: Any, classes: int):
        super().__init__()
        self.base = base
        self.score = nn.Linear(base.config.hidden_size, classes, bias=False)
        # The states of a decoder are large: with a random head, training would start from confident
        # answers and a loss far above that of a uniform guess.
        nn.init.zeros_(self.score.weight)
        # The fused base, and the state of the frozen weights that it was made from.
        self._fused: FusedDecoder | None = None
        self._fused_from: list[Any] = []

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, L) tokens, padded on the right, and (B,) lengths to (B, classes) logits.

        There is no mask: attention is causal, so no real token sees the padding after it.
        """
        if fused := self._fused_base():
            last = fused.last_hidden(input_ids, lengths)
        else:
            last = self.plain_last_hidden(input_ids, lengths)
        return self.score(last.to(self.score.weight.dtype))

    def logits_after_each_token(self, input_ids: Tensor) -> Tensor:
        """Map (B, L) tokens to (B, L, classes): the logits of the sentence cut after each token."""
        fused = self._fused_base()
        hidden = fused.hidden(input_ids) if fused else hidden_states(self.base, input_ids)
        return self.score(hidden.to(self.score.weight.dtype))

    def plain_last_hidden(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the (B, width) states of the last real tokens by transformers' own modules.

        For decoders that `fused_decoder` does not know, and as its reference in tests.
        """
        hidden = hidden_states(self.base, input_ids)
        return hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1]

    def _fused_base(self) -> FusedDecoder | None:
        """Return the base as fused blocks, fused again if its frozen weights have changed."""
        frozen = [p for p in self.base.parameters() if not p.requires_grad]
        state = [(p.data_ptr(), p._version, p.dtype) for p in frozen]
        with LOCK:
            if state != self._fused_from:
                self._fused, self._fused_from = fuse_decoder(self.base), state
            return self._fused

    def train(self, mode: bool = True) -> "Classifier":
        """Set the mode; the frozen base stays in evaluation mode, so only LoRA's dropout is on."""
        super().train(mode)
        self.base.eval()
        for _, layer in lora_layers(self.base):
            layer.train(mode)
        return self


def build_lora_classifier(
    base: Any, classes: int, *, rank: int, alpha: float, dropout: float = 0.0
) -> Classifier:
    """Return a classifier with LoRA on every linear layer, and norms and head trainable.

    All else is frozen.

    Args:
        base: a decoder of transformers without vocabulary head; changed in place.
        classes: number of classes.
        rank: rank of the updates.
        alpha: scaling numerator; updates are multiplied by alpha / rank.
        dropout: dropout on the input of the updates.

    Raises:
        UserError: a layer is too small for `rank`.
    """
    model = Classifier(base, classes)
    apply_lora(base, rank, alpha, dropout)
    return model


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of all and of trainable parameters; tied weights count once."""
    total = sum(p.numel() for p in model.parameters())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)


def encode(
    tokenizer: Any, sentences: list[str], max_length: int, start: int | None = None
) -> tuple[list[list[int]], int]:
    """Return the tokens of each sentence, and how many sentences were cut at `max_length` tokens.

    Args:
        tokenizer: a tokenizer of transformers.
        sentences: the sentences.
        max_length: the most tokens of a sentence, `start` included.
        start: a token to put before each sentence. Decoders attend to their first token whatever it
            is (Xiao et al. 2024, *Efficient Streaming Language Models with Attention Sinks*,
            section 3.1), so it should not be the sentence's first word.
    """
    tokens = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    if start is not None:
        tokens = [[start, *t] for t in tokens]
    cut = sum(len(t) > max_length for t in tokens)
    return [t[:max_length] for t in tokens], cut


def encode_spans(
    tokenizer: Any, sentences: list[str]
) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Return the tokens of each sentence and which of its characters each stands for."""
    if len(sentences) > 1 and getattr(tokenizer, "backend_tokenizer", None):
        # Through transformers a sentence takes twice as long, but that sets the backend up.
        tokenizer(sentences[:1], add_special_tokens=False)
        encodings = tokenizer.backend_tokenizer.encode_batch(sentences, add_special_tokens=False)
        return [each.ids for each in encodings], [each.offsets for each in encodings]
    encoded = tokenizer(sentences, add_special_tokens=False, return_offsets_mapping=True)
    return encoded["input_ids"], encoded["offset_mapping"]


def encode_words(
    tokenizer: Any, sentences: list[str], max_length: int, start: int | None = None
) -> tuple[TokenArray, TokenArray]:
    """Return the tokens of each sentence, and the positions of the last token of each of its words.

    The arguments and the tokens are those of `encode`; words that were cut off are left out, as in
    `word_ends`.
    """
    shift = int(start is not None)
    token_ids, spans = encode_spans(tokenizer, sentences)
    most = max_length - shift
    ends = TokenArray.of([[end for _, end in each[:most]] for each in spans])
    positions = ragged_word_ends(sentences, ends)
    if start is not None:
        token_ids = [[start, *ids[:most]] for ids in token_ids]
    return (
        TokenArray.of([ids[:max_length] for ids in token_ids]),
        TokenArray(positions.values + shift, positions.offsets),
    )


@torch.no_grad()
def logits_at(
    model: Classifier, tokens: TokenArray, positions: TokenArray, *, batch_tokens: int
) -> np.ndarray:
    """Return the logits of each sentence cut after the tokens at some positions, fp32.

    A batch has sentences of nearly one length, so that little of it is padding, and nothing is
    fetched from the device before all is computed.

    Args:
        model: In evaluation mode, on any device.
        tokens: N sentences.
        positions: Of each sentence, positions of its tokens.
        batch_tokens: Tokens of a batch, about; halved where the device's memory is too small.

    Returns:
        (total positions, classes), one sentence's after the other's.

    Raises:
        UserError: The device's memory is too small for a single sentence.
    """
    device = model.score.weight.device
    values = torch.from_numpy(tokens.values.astype(np.int64)).to(device)
    lengths = tokens.lengths
    order = np.argsort(-lengths, kind="stable")
    batch_tokens = min(batch_tokens, _tokens_that_fit.get(model, batch_tokens))
    result = torch.empty(len(positions.values), model.score.out_features, device=device)
    while len(order):
        longest = lengths[order[0]]
        fit = np.searchsorted(-lengths[order], -(1 - MOST_PADDING) * longest, side="right")
        rows = order[: max(1, min(int(fit), batch_tokens // longest))]
        at = (
            np.minimum(np.arange(longest), lengths[rows][:, None] - 1)
            + tokens.offsets[rows][:, None]
        )
        wanted = positions_of(positions.offsets, rows)
        owners = np.repeat(np.arange(len(rows)), positions.lengths[rows])
        try:
            logits = model.logits_after_each_token(values[torch.from_numpy(at).to(device)])
            where = torch.from_numpy(owners * longest + positions.values[wanted]).to(device)
            result[torch.from_numpy(wanted).to(device)] = logits.flatten(0, 1)[where].float()
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise UserError(
                    "the GPU has too little memory for a single sentence; stop what else uses it, "
                    "or take a smaller base decoder (`gpt_variant`)."
                ) from error
            batch_tokens = _tokens_that_fit[model] = len(rows) * int(longest) // 2
            logger.warning("too little GPU memory; it goes on with %d tokens at once", batch_tokens)
            continue
        order = order[len(rows) :]
    return result.cpu().numpy()

"""DistilRNN, the student: Embedding, recurrent layers, Linear."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from potstill.ops.dropout import Dropout
from potstill.ops.gru import gru
from potstill.settings import NetworkSettings

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True, kw_only=True)
class StudentConfig(NetworkSettings):
    """All it takes to build a DistilRNN."""

    vocab_size: int
    classes: int
    word_head: bool = False
    """Classify after each token, too."""


class DistilRNN(nn.Module):
    """A recurrent network that classifies by its last state (of each direction) and by the largest
    value that each unit has had on the way.

    The student of Tang et al. 2019, *Distilling Task-Specific Knowledge from BERT into Simple
    Neural Networks*, section 3.1, with the kind of recurrence left open; the maximum is that of
    Conneau et al. 2017, *Supervised Learning of Universal Sentence Representations from Natural
    Language Inference Data*, section 3.2.2.

    With `word_head`, a second linear layer classifies after each token what is read so far. It
    learns what a teacher that reads forwards says there; the states that it reads know, backwards,
    what follows too.

    Training on a CPU, a GRU makes its products in `product_dtype`; all else is in fp32.
    """

    def __init__(self, config: StudentConfig, product_dtype: torch.dtype = torch.float32):
        super().__init__()
        self.config = config
        self.product_dtype = product_dtype
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = Dropout(config.dropout)
        self.rnn = CELLS[config.cell](
            config.embedding_size,
            config.hidden_size,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.directions = 2 if config.bidirectional else 1
        self.score = nn.Linear(2 * config.hidden_size * self.directions, config.classes)
        self.word_score: nn.Linear | None = None
        if config.word_head:
            self.word_score = nn.Linear(config.hidden_size * self.directions, config.classes)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return (B, classes) logits of (B, L) tokens, padded on the right, of (B,) lengths; in
        training with a `word_head` also (B, L, classes), the logits after each token."""
        states = self.states(input_ids, lengths)
        logits = self.classify(states, lengths)
        if self.word_score is None or not self.training:
            return logits
        return logits, self.word_score(self.dropout(states))

    def word_logits(self, input_ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, classes) logits as `forward`, and those after each token, (B, L, classes);
        those in the padding are arbitrary."""
        assert self.word_score is not None, "a student without a word head"
        states = self.states(input_ids, lengths)
        return self.classify(states, lengths), self.word_score(states)

    def classify(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, classes) logits from the states of whole sentences, as from `states`."""
        B, H = len(lengths), self.config.hidden_size
        last = states[torch.arange(B, device=states.device), lengths - 1, :H]
        if self.config.bidirectional:  # backwards the first token is read last
            last = torch.cat([last, states[:, 0, H:]], dim=1)
        padding = torch.arange(states.shape[1], device=states.device) >= lengths[:, None]
        if bool(padding.any()):
            states = states.masked_fill(padding[..., None], -torch.inf)
        largest = states.amax(1)
        return self.score(self.dropout(torch.cat([last, largest], dim=1)))

    def states(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the (B, L, directions · hidden) states of the last recurrent layer; those in the
        padding are arbitrary."""
        x: Any = self.dropout(self.embedding(input_ids))
        if self.config.cell == "gru" and x.is_cpu:
            dtype = self.product_dtype if self.training else x.dtype
            n = self.directions
            for layer in range(self.config.layers):
                weights = self.rnn.all_weights[layer * n : (layer + 1) * n]
                x = gru(self.dropout(x) if layer else x, lengths, weights, dtype)
            return x
        if bool((lengths < input_ids.shape[1]).any()):
            # Else the backward direction would start in the padding.
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            states = self.rnn(packed)[0]
            return pad_packed_sequence(states, True, total_length=input_ids.shape[1])[0]
        return self.rnn(x)[0]

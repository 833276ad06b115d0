"""The heads of a student that serve its training only."""

from typing import Any

import torch
from torch import Tensor, nn

from potstill.ops.cross_entropy import TiedCrossEntropy
from potstill.student.model import DistilRNN


class WordByWord(nn.Module):
    """A DistilRNN in training, with a linear layer that tells what it makes of each word."""

    def __init__(self, student: Any):
        super().__init__()
        config = student.config
        self.student = student
        self.word_score = nn.Linear(config.hidden_size * student.directions, config.classes)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Any:
        """As the student; in training besides (B, L, classes), the logits of each token."""
        states = self.student.states(input_ids, lengths)
        logits = self.student.classify(states, lengths)
        if not self.training:
            return logits
        return logits, self.word_score(self.student.dropout(states))


def followed(input_ids: Tensor, lengths: Tensor) -> Tensor:
    """(B, L - 1), True for each of (B, L) tokens that another of its sentence follows."""
    inner = torch.arange(1, input_ids.shape[1], device=input_ids.device)
    return inner < lengths.to(inner.device)[:, None]


class NextToken(nn.Module):
    """A student with what makes tokens of its states: for each direction a linear layer to the
    width of the embeddings, whose matrix scores the tokens (Press and Wolf 2017, *Using the Output
    Embedding to Improve Language Models*)."""

    def __init__(self, student: DistilRNN):
        super().__init__()
        config = student.config
        self.student = student
        self.heads = nn.ModuleList(
            nn.Linear(config.hidden_size, config.embedding_size) for _ in range(student.directions)
        )
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        soft: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Mean loss of (B, L) tokens, padded on the right, and their (B,) lengths.

        soft: what is likely forwards, for each token that another follows, one after the other:
        places in the vocabulary and their shares, both (N, K).
        """
        states = self.student.states(input_ids, lengths).chunk(len(self.heads), dim=-1)
        inner = followed(input_ids, lengths)
        # Forwards a state predicts the token after it, backwards the one before.
        pairs = [(states[0][:, :-1], input_ids[:, 1:]), (states[-1][:, 1:], input_ids[:, :-1])]
        losses = []
        for way, (head, (state, target)) in enumerate(zip(self.heads, pairs, strict=False)):
            places = target[inner]
            if soft and way == 0:
                places, shares = (x.to(places.device) for x in soft)
            else:
                places = places[:, None]
                shares = torch.ones_like(places, dtype=torch.float32)
            losses.append(
                TiedCrossEntropy.apply(
                    head(self.student.dropout(state[inner])),
                    self.student.embedding.weight,
                    self.bias,
                    places,
                    shares,
                    self.student.product_dtype,
                )
            )
        return torch.stack(losses).mean()

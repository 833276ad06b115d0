"""The head of a student that serves its training only."""

import torch
from torch import Tensor, nn

from potstill.ops.cross_entropy import TiedCrossEntropy
from potstill.student.model import DistilRNN


class NextTokenHead(nn.Module):
    """A student with what predicts tokens from its states: for each direction a linear layer to the
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
        targets: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the mean loss of (B, L) tokens, padded on the right, and their (B,) lengths.

        targets: of the forward direction, after each token that another follows, one sentence after
            the other: token ids and their weights, both (N, K). Default: the tokens that follow.
        """
        states = self.student.states(input_ids, lengths).chunk(len(self.heads), dim=-1)
        # (B, L - 1), True for each token that another of its sentence follows.
        followed = torch.arange(1, input_ids.shape[1], device=input_ids.device) < lengths[:, None]
        # Forwards a state predicts the token after it, backwards the one before.
        pairs = [(states[0][:, :-1], input_ids[:, 1:]), (states[-1][:, 1:], input_ids[:, :-1])]
        losses = []
        for direction, (head, (state, token_ids)) in enumerate(
            zip(self.heads, pairs, strict=False)
        ):
            if targets and direction == 0:
                target_ids, weights = targets
            else:
                target_ids = token_ids[followed][:, None]
                weights = torch.ones_like(target_ids, dtype=torch.float32)
            losses.append(
                TiedCrossEntropy.apply(
                    head(self.student.dropout(state[followed])),
                    self.student.embedding.weight,
                    self.bias,
                    target_ids,
                    weights,
                    self.student.product_dtype,
                )
            )
        return torch.stack(losses).mean()
